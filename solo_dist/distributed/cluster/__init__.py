"""Who the workers are and which one this process is: one file for each kind of launcher or scheduler."""
