"""Disks: COW files, images and how they are made, files that stay sparse and whole."""
