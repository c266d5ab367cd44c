#!/usr/bin/env bash
# Prints the path of a bitcoind, with bitcoin-cli beside it: the one on PATH, else Debian's bitcoin-knots. That is in sid
# only, and needs a newer C library than a stable release has: so it is unpacked into a cache folder together with sid's
# libraries, and runs through their loader. The system stays as it is, and root is not needed.
set -euo pipefail
# shellcheck source=contrib/lib/debian.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/debian.sh"

if found=$(command -v bitcoind) && command -v bitcoin-cli >/dev/null; then
	printf '%s\n' "$found"
	exit
fi

cache=$(cache_dir bitcoind)
bitcoind=$cache/ready/bin/bitcoind
# The folder gets this name only when it is complete.
if [ ! -x "$bitcoind" ]; then
	need_apt "put bitcoind and bitcoin-cli on PATH"
	one_at_a_time "$cache"
fi
if [ ! -x "$bitcoind" ]; then
	rm -rf "$cache/new" "$cache/ready"
	mkdir -p "$cache/new/bin"
	# The small package satisfies a dependency that would else bring the whole of systemd.
	debian_sid "$cache/new" bitcoin-knots systemd-standalone-sysusers
	loader=$(cd "$cache/new/root" && find . -name 'ld-linux*.so.*' | head -n 1)
	[ -n "$loader" ] || die "no loader among the packages: see $cache/new"
	libs=$(cd "$cache/new/root" && find . -name 'lib*.so.*' ! -name '*.py' -printf '%h\n' | sort -u | sed "s,^\.,\$root,")
	for name in bitcoind bitcoin-cli; do
		cat >"$cache/new/bin/$name" <<-END
			#!/bin/sh
			root=$(printf '%q' "$cache/ready/root")
			exec "\$root/${loader#./}" --library-path "$(tr '\n' ':' <<<"$libs" | sed 's,:*$,,')" "\$root/usr/bin/$name" "\$@"
		END
		chmod +x "$cache/new/bin/$name"
	done
	mv -T "$cache/new" "$cache/ready"
	"$bitcoind" --version >/dev/null || die "the bitcoind unpacked in $cache/ready does not run"
	say "ready: $("$bitcoind" --version | head -n 1)"
fi
printf '%s\n' "$bitcoind"
