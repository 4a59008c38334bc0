"""Servers of object stores on the loopback interface, each a process of its own that can be made faulty."""
