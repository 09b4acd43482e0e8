#!/usr/bin/env bash
# Runs the units under a real systemd, booted in a clean root by systemd-nspawn: scripts/systemd_real.sh BINARY [ROOT]. Debian, as root.
# ROOT: one made by `debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps,curl bookworm ROOT`.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1
work=$(mktemp -d)
root=$work/root
if [ -n "${2:-}" ]; then cp -a "$2" "$root"; else
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps,curl bookworm "$root" >/dev/null
fi
install -m644 systemd/*.service systemd/*.socket "$root/etc/systemd/system/"
install -m644 systemd/goma.sysusers.conf "$root/usr/lib/sysusers.d/goma.conf"
install -m755 "$binary" "$root/usr/local/bin/goma"
mkdir -p "$root/etc/goma"
config() { # address of web
    cat >"$root/etc/goma/goma.yml" <<YML
version: 2
gateway:
  entryPoints: {web: {address: "$1"}, webSecure: {address: "[::]:8443"}}
  log: {level: info}
  routes: [{name: a, path: /, target: "http://127.0.0.1:9"}]
YML
    chmod 644 "$root/etc/goma/goma.yml"
}
config "[::]:80"
systemd-nspawn -q -D "$root" --boot --register=no --keep-unit --private-network --console=pipe >"$work/console" 2>&1 &
nspawn=$!
cleanup() { kill -TERM $nspawn 2>/dev/null || true; wait $nspawn 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
init() { cat "/proc/$nspawn/task/$nspawn/children" 2>/dev/null | tr ' ' '\n' | head -1; }
inside() { nsenter -t "$(init)" -m -u -i -n -p -r -w -- "$@"; }
for _ in $(seq 300); do inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded' && break; sleep 0.2; done
show() { inside systemctl show -P "$2" "$1"; }
expect() { # what, got, wanted
    [ "$2" = "$3" ] || { echo "FAILED: $1: got '$2', wanted '$3'"; inside journalctl --no-pager -n 60 -u goma -u goma-activated; exit 1; }
    echo "ok: $1: $2"
}
ask() { inside curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$1/readyz" || true; }
changed() { # unit, old main process: waits for another one
    for _ in $(seq 100); do [ "$(show "$1" MainPID)" != "$2" ] && return; sleep 0.1; done
}

inside systemd-sysusers
inside systemctl daemon-reload
inside systemctl start goma
expect "started (Type=notify)" "$(show goma ActiveState)" active
expect "serves on port 80 as an unprivileged user" "$(ask 80)" 200
first=$(show goma MainPID)
expect "its user" "$(inside ps -o user= -p "$first")" goma
expect "its capabilities" "$(inside grep CapEff "/proc/$first/status" | tr -d '\t')" "CapEff:0000000000000400"
echo "its limit of files: $(inside awk '/open files/ {print $4}' "/proc/$first/limits") (no more than the machine allows)"
inside systemctl reload goma
expect "reload" "$(show goma ActiveState)" active
echo "gateway: [" >>"$root/etc/goma/goma.yml"
inside systemctl reload goma || true
expect "a broken file is no end" "$(show goma ActiveState)/$(ask 80)" active/200
config "[::]:80"
inside goma upgrade
changed goma "$first"
second=$(show goma MainPID)
[ "$second" != "$first" ] || expect "main process" "$second" "another one than $first"
expect "after an upgrade" "$(show goma ActiveState)/$(ask 80)" active/200
inside systemctl kill -s USR2 --kill-whom=main goma
changed goma "$second"
third=$(show goma MainPID)
[ "$third" != "$second" ] || expect "main process" "$third" "another one than $second"
expect "after an upgrade by signal" "$(show goma ActiveState)/$(ask 80)" active/200
inside systemctl stop goma
expect "stopped after an upgrade, and not killed" "$(show goma Result)/$(show goma ExecMainStatus)" success/0
killed=$(inside journalctl --no-pager -q -u goma | grep -c "Killing process" || true)
expect "processes killed by then" "$killed" 0
inside systemctl start goma
first=$(show goma MainPID)
inside goma upgrade
changed goma "$first"
third=$(show goma MainPID)
inside systemctl status --no-pager -n 0 goma | sed -n '1,12p'
inside kill -KILL "$third"
for _ in $(seq 100); do [ "$(ask 80)" = 200 ] && break; sleep 0.1; done
expect "killed, and back" "$(ask 80)" 200
inside kill -STOP "$(show goma MainPID)"
stuck=$(show goma MainPID)
for _ in $(seq 450); do [ "$(show goma MainPID)" != "$stuck" ] && [ "$(ask 80)" = 200 ] && break; sleep 0.1; done
expect "stuck: the watchdog restarts it" "$(ask 80)" 200
begin=$(date +%s)
inside systemctl stop goma
expect "stopped in time" "$(show goma Result)/$(($(date +%s) - begin < 20))" success/1

config "[::]:8080"
inside systemctl start goma.socket
expect "by socket activation" "$(ask 8080)" 200
old=$(show goma-activated MainPID)
inside goma upgrade --no-wait
changed goma-activated "$old"
expect "activated, after an upgrade" "$(show goma-activated ActiveState)/$(ask 8080)" active/200
inside systemctl restart goma-activated &
restart=$!
failed=0
for _ in $(seq 40); do [ "$(ask 8080)" = 000 ] && failed=$((failed + 1)); sleep 0.05; done
wait $restart
expect "refused while it restarts" $failed 0
echo "exposure:"
for unit in goma goma-activated; do inside systemd-analyze security --no-pager $unit | tail -1; done
