# What the scripts share. Sourced, not run.

# says TEXT: one line of what is being done.
says() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*"; }

# fails TEXT: says why, and ends.
fails() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# needs COMMAND[:PACKAGE]...: installs what is missing, where it may; else says what to install.
needs() {
    local entry packages=()
    for entry in "$@"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${entry%%:*}" >/dev/null || packages+=("${entry##*:}")
    done
    [ ${#packages[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        fails "missing: ${packages[*]}. On Debian or Ubuntu: sudo apt-get install ${packages[*]}"
    fi
    says "installing ${packages[*]}"
    (
        export DEBIAN_FRONTEND=noninteractive
        # Some come with a daemon, of which only the program is wanted: it must not start on this host (policy-rc.d is how
        # Debian asks).
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
        fi
        # The lists of a fresh machine are empty; those of an old one may name files that are gone.
        if ! apt-get install -y --no-install-recommends "${packages[@]}" >/dev/null 2>&1; then
            apt-get update -q >/dev/null
            apt-get install -y --no-install-recommends "${packages[@]}" >/dev/null
        fi
    )
}
