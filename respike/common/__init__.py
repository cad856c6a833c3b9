"""What every floor may use: errors, settings, files, addresses, downloads, progress and text."""
