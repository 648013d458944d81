#!/usr/bin/env bash
# `ssh HOST COMMAND...` for the hosts of hosts.sh: what a launcher is told to start its daemons with.
exec "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/hosts.sh" on "$@"
