# Runs one PostgreSQL server for a test process, and stops it when that process ends.
#
# Arguments: the folder of PostgreSQL's programs, the folder for temporary files.
# Standard input: `start PORT` or `stop`, one command per line. At its end, the server is stopped and
# its files are removed. It ends when the test process ends, however that happens.
# Standard output: after initdb and after each command, `ok`, or the end of the log and `failed`.

bin=$1
temporary=$2
trap '' HUP INT TERM

# PostgreSQL refuses to run as root.
as=
if [ "$(id -u)" = 0 ]; then
    user=nobody
    if id postgres >/dev/null 2>&1; then
        user=postgres
    fi
    as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
fi

answer() {
    if "$@" </dev/null >>log 2>&1; then
        echo ok
    else
        tail -n 20 log
        echo failed
    fi
}

initialise() {
    # shellcheck disable=SC2086
    $as "$bin/initdb" --pgdata=data --username=postgres --auth=trust --encoding=UTF8 \
        --no-locale --no-sync --no-instructions &&
        cat >>data/postgresql.conf <<END
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
dynamic_shared_memory_type = mmap
fsync = off
full_page_writes = off
END
}

# The server is a child of this shell, so that the shell reaps it. The init process of a container may
# not reap.
server=
start() {
    # shellcheck disable=SC2086 # $as is a command and its arguments, or nothing.
    $as "$bin/postgres" -D data -p "$1" >server.log 2>&1 &
    server=$!
    looks=0
    until is_ready; do
        looks=$((looks + 1))
        if [ "$looks" -gt 1200 ] || ! kill -0 "$server" 2>/dev/null; then
            stop
            cat server.log
            return 1
        fi
        sleep 0.05
    done
}

# Like pg_ctl: the first line of the file is the process id, the last the state.
is_ready() {
    grep -qx "$server" data/postmaster.pid && grep -q '^ready' data/postmaster.pid
} 2>/dev/null

# As in a crash: nothing is flushed, connections break.
stop() {
    [ -n "$server" ] || return 0
    kill -s QUIT "$server" 2>/dev/null
    wait "$server"
    server=
}

# The other user may have no access to the temporary folder of root.
folder=
for base in "$temporary" /tmp /var/tmp; do
    # shellcheck disable=SC2086
    if made=$($as mktemp -d "$base/dofs-postgres.XXXXXX" 2>&1); then
        folder=$made
        break
    fi
done
[ -n "$folder" ] && cd "$folder" || {
    echo "no folder in $temporary, /tmp or /var/tmp that PostgreSQL's user can use: $made" >&2
    exit 1
}

answer initialise
while read -r command port; do
    case $command in
    start) answer start "$port" ;;
    stop) answer stop ;;
    esac
done

stop >/dev/null 2>&1
cd /
rm -rf "$folder"
