#!/usr/bin/env bash
# Hosts made of network namespaces, each with a network card and a name of its own, on one switch: what programs need to
# be tested on several hosts without having any. Needs root, ip and tc (iproute2), unshare and nsenter (util-linux).
#
#   hosts.sh run [--rate RATE] HOST... -- COMMAND...
#
# Sets the hosts up, runs COMMAND on the first one, and takes everything down again, however the command ends. HOSTs are
# words of letters and digits, such as a b c. RATE is what each card sends and receives at most, as tc writes it (1gbit).
# In COMMAND's environment, WEIR_HOSTS_AGENT is what starts a launcher's daemons on other hosts, in place of ssh.
# Exit code: the command's; 77 where hosts cannot be made here, with a line that says why.
#
#   hosts.sh on HOST COMMAND...   runs COMMAND on a host of a run that is under way (WEIR_HOSTS names it), as ssh would.
#   hosts.sh cut HOST             takes the host off the switch.
set -euo pipefail

readonly subnet=10.77.0
self=$(readlink -f -- "${BASH_SOURCE[0]}")

skip() {
  echo "skipped: $*"
  exit 77
}

# Names of a run's namespaces carry its id, so that runs do not disturb each other.
namespace_of() { echo "weir-$1-$2"; }

# With what still runs on the hosts: a daemon whose host was cut off, or whose launcher was killed.
take_down() {
  local id=$1 namespace process
  for namespace in $(ip netns list | awk -v prefix="weir-$id-" 'index($1, prefix) == 1 { print $1 }'); do
    for process in $(ip netns pids "$namespace"); do kill -KILL "$process" 2>/dev/null || true; done
    ip netns delete "$namespace" || true
    rm -rf -- "/etc/netns/$namespace"
  done
}

# A flow that finds its way to the link's rate by itself needs many round trips, and a step of a run is over before.
tune_tcp() { # NAMESPACE
  ip netns exec "$1" sh -c 'cd /proc/sys/net/ipv4 && echo reno >tcp_congestion_control && echo 0 >tcp_slow_start_after_idle'
}

# Packets are far smaller than the bucket: one that needs nearly all of it waits until it is full, and the card is slower
# than it should be. A large bucket would let short messages through for nothing.
shape() { # NAMESPACE CARD RATE
  ip -n "$1" link set "$2" gso_max_segs 4 || return 1
  ip netns exec "$1" tc qdisc add dev "$2" root tbf rate "$3" burst 16kb latency 100ms
}

set_up() { # ID RATE HOST...
  local id=$1 rate=$2 switch number=0 host namespace
  shift 2
  switch=$(namespace_of "$id" switch)
  ip netns add "$switch" || return 1
  ip -n "$switch" link add bridge type bridge || return 1
  ip -n "$switch" link set bridge up
  for host in "$@"; do
    number=$((number + 1))
    namespace=$(namespace_of "$id" "$host")
    ip netns add "$namespace" || return 1
    ip link add eth0 netns "$namespace" type veth peer name "to-$host" netns "$switch" || return 1
    ip -n "$switch" link set "to-$host" master bridge up || return 1
    ip -n "$namespace" address add "$subnet.$number/24" dev eth0 || return 1
    ip -n "$namespace" link set lo up
    tune_tcp "$namespace" || return 1
    ip -n "$namespace" link set eth0 up || return 1
    mkdir -p -- "/etc/netns/$namespace"
    print_names "$@" >"/etc/netns/$namespace/hosts"
    if [[ -n $rate ]]; then
      shape "$namespace" eth0 "$rate" || return 1
      shape "$switch" "to-$host" "$rate" || return 1
    fi
  done
}

print_names() {
  local number=0 host
  echo "127.0.0.1 localhost"
  for host in "$@"; do
    number=$((number + 1))
    echo "$subnet.$number $host"
  done
}

verb_run() {
  local rate='' hosts=() id=$$ log status=0
  if [[ ${1-} == --rate ]]; then
    rate=$2
    shift 2
  fi
  while (($#)) && [[ $1 != -- ]]; do
    [[ $1 =~ ^[a-z0-9]+$ ]] || { echo "hosts.sh: found host '$1', allowed letters and digits" >&2; exit 2; }
    hosts+=("$1")
    shift
  done
  ((${#hosts[@]} && $# > 1)) || { echo "hosts.sh: found no host or no command, allowed HOST... -- COMMAND..." >&2; exit 2; }
  shift
  ((EUID == 0)) || skip "hosts of network namespaces need root"
  local tool
  for tool in ip tc unshare; do
    command -v "$tool" >/dev/null || skip "found no $tool (iproute2, util-linux)"
  done
  trap 'take_down "$id"' EXIT
  trap 'exit 143' TERM INT HUP
  # Not `if ! log=$(set_up ...)`: in a condition the shell does not stop at a failing command, so set_up returns itself.
  log=$(set_up "$id" "$rate" "${hosts[@]}" 2>&1) || skip "this kernel makes no such hosts: ${log//$'\n'/; }"
  export WEIR_HOSTS=$id WEIR_HOSTS_AGENT=${self%/*}/on_host.sh
  on_host "${hosts[0]}" "$@" || status=$?
  exit "$status"
}

# A command that belongs to a host sees that host's name and cards.
on_host() {
  local host=$1
  shift
  ip netns exec "$(namespace_of "$WEIR_HOSTS" "$host")" \
    unshare --uts -- sh -c 'hostname "$0" && exec "$@"' "$host" "$@"
}

# As over ssh, whose options mean nothing here: the command's words are joined and given to a shell.
verb_on() {
  while [[ $1 == -* ]]; do shift; done
  local host=$1
  shift
  exec ip netns exec "$(namespace_of "$WEIR_HOSTS" "$host")" \
    unshare --uts -- sh -c 'hostname "$0" && exec sh -c "$1"' "$host" "$*"
}

verb_cut() { ip -n "$(namespace_of "$WEIR_HOSTS" switch)" link set "to-$1" down; }

case ${1-} in
  run | on | cut)
    verb=$1
    shift
    "verb_$verb" "$@"
    ;;
  *)
    echo "hosts.sh: found '${1-}', allowed run, on or cut" >&2
    exit 2
    ;;
esac
