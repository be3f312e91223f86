"""`python -m gateway.cli`: how the supervisor starts its processes."""

from gateway.cli import main

main()
