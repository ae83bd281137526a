"""Readers of the formats that image data sets are published in: files to `Official`, one format a module.

Why not torchvision's own classes, which know the same formats: they unpickle CIFAR's batches freely, need every archive
unpacked beside itself, and take as much memory as a header asks for. Here files are read as they were downloaded, in
memory, and no further than the record of the source allows. Tests compare both.
"""
