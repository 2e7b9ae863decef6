"""The commands: each reads its arguments before it imports anything but the standard library.

A file of ``tools/`` and, for some, an entry point runs the module of the same name here. What a command needs beside
its options is imported at the top of its ``run...`` functions.
"""
