# Image with respike and its dependencies, for CPUs and NVIDIA GPUs:
#   docker build -t respike .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" --shm-size 2g respike prepare ucf101
# torch from PyPI includes CUDA. To use a GPU, run with `--gpus all`.
FROM python:3.12-slim

# bsdtar unpacks the RAR archives of UCF101 and HMDB51
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libarchive-tools \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY respike ./respike
RUN pip install --no-cache-dir --constraint constraints.txt '.[ray]' && rm -rf /src/build

# any user can run it: caches go to /tmp, results to the mounted folder
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["respike"]
CMD ["--help"]
