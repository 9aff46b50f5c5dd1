#!/usr/bin/python3 -IS
"""Becomes QEMU, with the disks as descriptors instead of files it would have to open."""

import os
import socket
import stat
import sys

words = sys.argv[1:]
if "-drive" in words:  # not when libguestfs only asks what QEMU can do
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(os.environ["SNF_DISKS"])
        names, descriptors, _, _ = socket.recv_fds(connection, 65536, 64)
    for name, descriptor in zip(names.decode().split("\0"), descriptors, strict=True):
        os.set_inheritable(descriptor, True)
        device = stat.S_ISBLK(os.fstat(descriptor).st_mode)
        disk = f"file.driver={'host_device' if device else 'file'}"
        disk += f",file.filename=/dev/fdset/{descriptor},"
        words = [word.replace(f"file={name},", disk) for word in words]
        words += ["-add-fd", f"fd={descriptor},set={descriptor}"]
    words += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"]
os.execv("/usr/bin/qemu-system-x86_64", ["qemu", *words])
