"""The labs' virtual machine without Vagrant: one Debian image, booted by qemu, this checkout shared.

    tasks      children that die with us, steps with a line each, the one exception
    settings   what the environment says, checked
    image      packages -> root file system -> provisioned -> disk, kept by the hash of its inputs
    box        the same image for Vagrant
    machine    virtiofsd and qemu from start to end; commands by ssh
    resident   the machine that stays up between commands
    command    arguments -> exit status

Imports point up this list only. Every failure of ours is a `Trouble`: one clear line, exit status 125.
"""
