# Runs one PostgreSQL server for a test process, and ends it with that process.
#
# Arguments: the folder of PostgreSQL's programs, the folder for temporary files.
# Standard input: `start PORT` and `stop`, one a line. When it ends, however the test process
# ended, the server is stopped and everything that it wrote is removed.
# Standard output: after initdb and after each command, `ok`, or the log's end and `failed`.

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

# The server is this shell's own child, so that it is reaped too and not left to an init process
# that may not do that.
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

# As PostgreSQL's own pg_ctl does: the file's first line names the process, its last the state.
is_ready() {
    grep -qx "$server" data/postmaster.pid && grep -q '^ready' data/postmaster.pid
} 2>/dev/null

# As in a crash: nothing is written out, connections break.
stop() {
    [ -n "$server" ] || return 0
    kill -s QUIT "$server" 2>/dev/null
    wait "$server"
    server=
}

# The other user may not be able to reach the folder that root was given.
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
