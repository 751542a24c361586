# shellcheck shell=bash
# Shared by the scripts of deploy/ (bash, sourced): progress with timing, packages, the build.
#
# Every long step goes through `step`: its output is kept in a log, a line says what runs and for how long, and when it fails the end
# of the log is shown. Nothing here needs a terminal or root; packages are installed with sudo when one is missing.

[ -n "${BASH_VERSION:-}" ] || { echo "run this with bash" >&2; exit 2; }
set -u -o pipefail
export LC_ALL=C.UTF-8

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
started_s=$SECONDS
step_pid=

# Colours only where a person looks.
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' plain=''
fi

say()  { printf '%s\n' "$*"; }
warn() { printf '%swarning:%s %s\n' "$bold" "$plain" "$*" >&2; }
die()  { printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2; exit 1; }

# A step that is interrupted takes its command with it, and nothing else.
interrupted()
{
    trap - INT TERM
    [ -z "$step_pid" ] || kill -TERM -- "-$step_pid" 2>/dev/null || kill -TERM "$step_pid" 2>/dev/null
    printf '\n%sinterrupted%s\n' "$red" "$plain" >&2
    exit 130
}
trap interrupted INT TERM

# Where the logs of steps go; made on first use.
log_dir=${RANKD_LOG_DIR:-$repo/build/log}

# step NAME TITLE COMMAND...: runs the command with its output in $log_dir/NAME.log. A terminal sees the log's last line move; without one a
# line every 15 s says that it is alive. Returns the command's status.
step()
{
    local name=$1 title=$2 log begun rc last shown=0
    shift 2
    mkdir -p "$log_dir" || die "cannot make $log_dir: check who owns it"
    log=$log_dir/$name.log
    begun=$SECONDS
    [ -t 1 ] || say "$(printf '[%4ds] ' $((SECONDS - started_s)))$title ..."
    set -m # a process group of its own, so that it can be interrupted as a whole
    "$@" >"$log" 2>&1 </dev/null &
    step_pid=$!
    set +m
    while kill -0 "$step_pid" 2>/dev/null; do
        if [ -t 1 ]; then
            last=$(tail -n 1 "$log" 2>/dev/null | tr -d '\r' | cut -c 1-70)
            printf '\r\e[K[%4ds] %s %s(%ds) %s%s' $((SECONDS - started_s)) "$title" "$dim" $((SECONDS - begun)) "$last" "$plain"
        elif [ $((SECONDS - begun - shown)) -ge 15 ]; then
            shown=$((SECONDS - begun))
            say "        still at it, $shown s: $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-90)"
        fi
        sleep 0.2
    done
    wait "$step_pid"
    rc=$?
    step_pid=
    [ -t 1 ] && printf '\r\e[K'
    if [ $rc -eq 0 ]; then
        say "$(printf '[%4ds] ' $((SECONDS - started_s)))$title: ${green}done$plain in $((SECONDS - begun)) s"
    else
        say "$(printf '[%4ds] ' $((SECONDS - started_s)))$title: ${red}failed$plain after $((SECONDS - begun)) s (exit status $rc)"
        tail -n 40 "$log" | sed 's/^/    | /'
        say "    the whole log: $log"
    fi
    return $rc
}

check_system()
{
    local id version
    id=$(. /etc/os-release 2>/dev/null && printf '%s' "${ID:-}")
    version=$(. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_ID:-}")
    [ "$id $version" = "debian 12" ] ||
        warn "this is ${id:-an unknown system} ${version:-}; rankd is built and tested on Debian 12, where package names and versions may differ"
    case $(uname -m) in
    x86_64 | aarch64) ;;
    *) warn "$(uname -m) runs the scalar kernels only" ;;
    esac
}

# packages_of GROUP...: their names, from deploy/packages.
packages_of()
{
    awk -v groups=" $* " '/^[^#]/ && index(groups, " " $2 " ") { print $1 }' "$repo/deploy/packages"
}

missing_packages()
{
    local package
    for package in $(packages_of "$@"); do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || printf '%s\n' "$package"
    done
}

# as_root COMMAND...: directly, or through sudo; with no terminal sudo must not ask.
as_root()
{
    if [ "$(id -u)" -eq 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    elif [ -t 0 ]; then
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

apt_install()
{
    as_root apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "$@"
}

# The lists are refreshed only when they do not know a package, or when what they know is gone from the mirror.
apt_install_refreshing()
{
    local package
    for package in "$@"; do
        if ! apt-cache show "$package" >/dev/null 2>&1; then
            as_root apt-get -q update || return
            apt_install "$@"
            return
        fi
    done
    apt_install "$@" || { as_root apt-get -q update && apt_install "$@"; }
}

# install_packages GROUP...: what is missing of them. Asks for nothing and needs no root when all is there.
install_packages()
{
    local missing
    command -v dpkg-query >/dev/null || {
        warn "no dpkg here: install the equivalents of deploy/packages (groups: $*) yourself"
        return 0
    }
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || { say "packages: all there"; return 0; }
    say "packages: ${#missing[@]} missing: ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            die "not root and no sudo; as root, run:
    apt-get update && apt-get install --no-install-recommends ${missing[*]}"
        if [ -t 0 ]; then
            sudo -v || die "sudo refused; as root, run: apt-get install --no-install-recommends ${missing[*]}"
        else
            sudo -n true 2>/dev/null ||
                die "sudo wants a password and there is no terminal; as root, run:
    apt-get update && apt-get install --no-install-recommends ${missing[*]}"
        fi
    fi
    step packages "installing ${#missing[@]} packages" apt_install_refreshing "${missing[@]}" ||
        die "packages could not be installed; see above"
}

# configure DIR OPTION...: makes the build directory once; later only changes options that differ. A checkout that was moved or copied
# has a build directory that speaks of another place: what meson made there is made anew.
configure()
{
    local dir=$1
    shift
    if [ "$(cat "$dir/source" 2>/dev/null)" = "$repo" ] && [ -f "$dir/build.ninja" ]; then
        meson configure "$dir" "$@"
    else
        mkdir -p "$dir" && printf '%s\n' "$repo" >"$dir/source" || return
        rm -rf "$dir/meson-private" "$dir/meson-info" "$dir/build.ninja" "$dir/.ninja_deps" "$dir/.ninja_log"
        meson setup "$dir" "$repo" "$@"
    fi
}

# build DIR TITLE OPTION...: configures and compiles; all of it, or what the array `targets` names.
targets=()
build()
{
    local dir=$1 title=$2 name
    shift 2
    name=$(basename "$dir")
    step "$name-configure" "configuring $title" configure "$dir" "$@" || return
    step "$name-compile" "compiling $title" ninja -C "$dir" ${targets[@]+"${targets[@]}"}
}
