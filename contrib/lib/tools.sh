#!/usr/bin/env bash
# Makes sure of the tools that the checks need and a machine may lack.
#   tools.sh cargo-deny   installs cargo-deny if there is none
#   tools.sh postgres     prints the folder of PostgreSQL's server programs
#   tools.sh              both, and prints PG_BIN=FOLDER, for eval
set -euo pipefail
# shellcheck source=contrib/lib/debian.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/debian.sh"

CARGO_DENY_VERSION=0.20.2

cargo_deny() {
	command -v cargo-deny >/dev/null && return
	one_at_a_time "$(cache_dir tools)"
	command -v cargo-deny >/dev/null && return
	say "installing cargo-deny $CARGO_DENY_VERSION: takes some minutes"
	# From / and without CARGO_TARGET_DIR: neither the project's toolchain file nor its build folder is touched.
	(cd / && env -u CARGO_TARGET_DIR cargo install --quiet --locked --version "$CARGO_DENY_VERSION" cargo-deny >&2)
}

postgres() {
	local cache real lib name
	# The newest release installed.
	real=$(find /usr/lib/postgresql -path '*/bin/postgres' 2>/dev/null | sort -V | tail -n 1)
	if [ -n "$real" ]; then
		dirname "$real"
		return
	fi
	cache=$(cache_dir postgres)
	if [ ! -x "$cache/ready/bin/postgres" ]; then
		need_apt "install PostgreSQL's server under /usr/lib/postgresql"
		one_at_a_time "$cache"
	fi
	if [ ! -x "$cache/ready/bin/postgres" ]; then
		rm -rf "$cache/new" "$cache/ready"
		mkdir -p "$cache/new/bin"
		debian_own "$cache/new" postgresql
		real=$(cd "$cache/new/root" && find . -path '*/bin/postgres' | head -n 1)
		[ -n "$real" ] || die "no server among the packages: see $cache/new"
		lib=$(cd "$cache/new/root" && find . -name 'lib*.so.*' ! -name '*.py' -printf '%h\n' | sort -u | sed "s,^\.,\$root," | tr '\n' ':')
		# The programs start one another beside themselves, so the libraries go through the environment.
		for name in "$cache/new/root/${real%/*}"/*; do
			name=${name##*/}
			cat >"$cache/new/bin/$name" <<-END
				#!/bin/sh
				root=$(printf '%q' "$cache/ready/root")
				LD_LIBRARY_PATH="$lib\$LD_LIBRARY_PATH" exec "\$root/$(dirname "${real#./}")/$name" "\$@"
			END
			chmod +x "$cache/new/bin/$name"
		done
		mv -T "$cache/new" "$cache/ready"
		"$cache/ready/bin/postgres" --version >/dev/null || die "the server unpacked in $cache/ready does not run"
		say "ready: $("$cache/ready/bin/postgres" --version)"
	fi
	printf '%s\n' "$cache/ready/bin"
}

case ${1-} in
cargo-deny) cargo_deny ;;
postgres) postgres ;;
'')
	cargo_deny
	bin=$(postgres)
	printf 'PG_BIN=%q\n' "$bin"
	;;
*) die "usage: ${0##*/} [cargo-deny | postgres]" ;;
esac
