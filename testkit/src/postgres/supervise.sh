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

start() {
    # shellcheck disable=SC2086 # $as is a command and its arguments, or nothing.
    $as "$bin/pg_ctl" --pgdata=data --log=server.log --silent --timeout=60 -o "-p $1" start ||
        {
            cat server.log
            return 1
        }
}

stop() {
    # shellcheck disable=SC2086
    $as "$bin/pg_ctl" --pgdata=data --mode=immediate --silent --timeout=60 stop
}

# The other user may not be able to reach the folder that root was given.
folder=
for base in "$temporary" /tmp /var/tmp; do
    # shellcheck disable=SC2086
    folder=$($as mktemp -d "$base/dofs-postgres.XXXXXX" 2>/dev/null) && break
done
cd "$folder" || exit

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
