"""respike.data: its public names."""

import subprocess
import sys

import respike.data


def test_every_public_name_is_there_and_in_dir():
    for name in respike.data.__all__:
        assert getattr(respike.data, name) is not None
        assert name in dir(respike.data)


def test_prepare_and_decode_sample_load_no_torch():
    code = "import sys\nfrom respike.data import decode_sample, prepare\nprint('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
