"""The commands of `solo-dist` besides train, evaluate, predict and export, one a file; see solo_dist/__main__.py."""
