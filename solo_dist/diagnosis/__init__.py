"""What `solo-dist doctor` finds out about a machine, one kind of question a module."""
