#!/usr/bin/env bash
# Sourced: takes Debian packages without root and without touching the system's own apt.
set -euo pipefail

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
	say "$@"
	exit 1
}

# cache_dir NAME: a folder of ours that outlives the work tree, made if missing.
cache_dir() {
	local dir=${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/cln-federation/$1
	mkdir -p "$dir"
	printf '%s\n' "$dir"
}

# one_at_a_time DIR: the others wait here until this process ends.
one_at_a_time() {
	command -v flock >/dev/null || die "flock is missing (Debian's package util-linux)"
	exec {CLN_FEDERATION_LOCK}>"$1/lock"
	flock -n "$CLN_FEDERATION_LOCK" || {
		say "another process is filling $1: waiting"
		flock "$CLN_FEDERATION_LOCK"
	}
}

# debian_uris: the archives that this machine's own apt is set to, one per line.
debian_uris() {
	local file
	{
		for file in /etc/apt/sources.list.d/*.sources; do
			[ -r "$file" ] || continue
			awk 'function flush() { if (deb && !off) print uris; uris = ""; deb = off = 0; key = "" }
				/^#/ { next }
				/^[ \t]*$/ { flush(); next }
				/^[^ \t]/ { key = tolower($1); $1 = "" }
				key == "types:" && / deb( |$)/ { deb = 1 }
				key == "enabled:" && /no|false/ { off = 1 }
				key == "uris:" { uris = uris " " $0 }
				END { flush() }' "$file"
		done
		for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
			[ -r "$file" ] || continue
			awk '/^[ \t]*deb[ \t]/ { sub(/^[ \t]*deb[ \t]+/, ""); sub(/^\[[^]]*\][ \t]*/, ""); print $1 }' "$file"
		done
		# shellcheck disable=SC2016 # apt fills it in
		apt-get indextargets --format '$(REPO_URI)' 2>/dev/null || true
	} | tr -s ' \t' '\n' | sed 's,/*$,,' | awk '/:/ && !/^cdrom:/ && !seen[$0]++'
}

# private_apt DIR: a configuration under which apt writes only into DIR. Proxies and certificates stay the machine's.
private_apt() {
	local dir=$1
	mkdir -p "$dir/state/lists/partial" "$dir/archives/partial" "$dir/log"
	cat >"$dir/apt.conf" <<-END
		Dir::State "$dir/state";
		Dir::State::status "$dir/state/status";
		Dir::Cache "$dir";
		Dir::Cache::archives "$dir/archives";
		Dir::Log "$dir/log";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		APT::Sandbox::User "";
		APT::Install-Recommends "false";
		APT::Install-Suggests "false";
		APT::Update::Error-Mode "any";
		APT::Get::AllowUnauthenticated "false";
		Acquire::AllowInsecureRepositories "false";
		Acquire::Languages "none";
		Acquire::Retries "3";
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
	END
}

# take DIR PACKAGE...: downloads the packages with all that DIR's status lacks, and unpacks them into DIR/root.
take() {
	local dir=$1 deb
	shift
	apt-get -c "$dir/apt.conf" -q -y --download-only install "$@" >>"$dir/log/apt" 2>&1 || {
		tail -n 5 "$dir/log/apt" >&2
		return 1
	}
	mkdir -p "$dir/root"
	for deb in "$dir"/archives/*.deb; do
		dpkg-deb -x "$deb" "$dir/root"
	done
	# Only the files are wanted from here on.
	rm -rf "$dir/archives" "$dir/state" "$dir"/*.bin
}

need_apt() {
	local tool
	for tool in apt-get dpkg-deb; do
		command -v "$tool" >/dev/null || die "$1 (no $tool here: not a Debian system)"
	done
}

# debian_sid DIR PACKAGE...: the packages and all that they need, the C library too, from Debian's unstable.
debian_sid() {
	local dir=$1 keyring uri
	shift
	for keyring in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg} ''; do
		[ ! -r "$keyring" ] || break
	done
	[ -n "$keyring" ] || die "Debian's signatures can't be checked: install the package debian-archive-keyring"
	private_apt "$dir"
	# An empty status: nothing counts as installed, so nothing is taken from a system with an older C library.
	: >"$dir/state/status"
	printf '%s\n' "Dir::Etc::sourcelist \"$dir/sid.sources\";" 'Dir::Etc::sourceparts "/dev/null";' >>"$dir/apt.conf"
	while read -r uri; do
		printf '%s\n' 'Types: deb' "URIs: $uri" 'Suites: sid' 'Components: main' "Signed-By: $keyring" >"$dir/sid.sources"
		say "reading Debian sid's package list from $uri"
		if apt-get -c "$dir/apt.conf" -q update >>"$dir/log/apt" 2>&1; then
			say "downloading $* with what they need"
			take "$dir" "$@" && return
		fi
	done < <(debian_uris)
	[ ! -s "$dir/log/apt" ] || tail -n 5 "$dir/log/apt" >&2
	die "none of the archives in this machine's apt configuration gave $* from sid"
}

# debian_own DIR PACKAGE...: the packages of the machine's own release, with only what is not installed.
debian_own() {
	local dir=$1
	shift
	private_apt "$dir"
	cp /var/lib/dpkg/status "$dir/state/status"
	say "reading the package lists"
	apt-get -c "$dir/apt.conf" -q update >>"$dir/log/apt" 2>&1 || tail -n 5 "$dir/log/apt" >&2
	say "downloading $* with what they need"
	take "$dir" "$@" || die "could not take $* from this machine's archives"
}
