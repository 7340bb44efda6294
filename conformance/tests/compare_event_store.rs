//! Output and exit codes of `compare-event-store`.

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        process::{Command, Output},
    };

    use testkit::node::TestNode;

    /// Runs the program on a blocking thread.
    async fn run_program(arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compare-event-store"));
        command.args(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    fn to_text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn equal_server_exits_with_0_and_counts() {
        let data = tempfile::tempdir().unwrap();
        let node = TestNode::start(data.path(), "127.0.0.1:0").await;
        let address = node.address().to_string();
        let output = run_program(&[&address, "--only", "^append/expect any, stream of 3$"]).await;
        let printed = to_text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{printed}");
        assert!(printed.contains("\n1 equal, 0 different for a known reason, 0 different"));
        node.stop().await;
    }

    /// The node has no HTTP API: a difference with a known reason.
    #[tokio::test(flavor = "multi_thread")]
    async fn known_differences_are_counted_and_shown_on_request() {
        let data = tempfile::tempdir().unwrap();
        let node = TestNode::start(data.path(), "127.0.0.1:0").await;
        let address = node.address().to_string();
        let output = run_program(&[&address, "--all", "--only", "^http/GET /info$"]).await;
        let printed = to_text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{printed}");
        assert!(printed.contains("known: http/GET /info\n"), "{printed}");
        assert!(printed.contains("\n0 equal, 1 different for a known reason, 0 different"));
        node.stop().await;
    }

    /// A server that accepts connections and closes them.
    #[tokio::test(flavor = "multi_thread")]
    async fn different_answers_exit_with_3() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let output = run_program(&[&address, "--only", "^append/expect any, stream of 3$"]).await;
        let printed = to_text(&output.stdout);
        assert_eq!(output.status.code(), Some(3), "{printed}");
        assert!(printed.contains("different: append/expect any, stream of 3\n"), "{printed}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn unreachable_server_exits_with_7() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let output = run_program(&[&address]).await;
        let printed = to_text(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{printed}");
        assert!(printed.contains(&format!("event store at {address} is unreachable")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn help_exits_with_0_and_missing_address_with_2() {
        let help = run_program(&["--help"]).await;
        assert_eq!(help.status.code(), Some(0));
        assert!(to_text(&help.stdout).contains("--only <PATTERN>"));
        assert_eq!(run_program(&[]).await.status.code(), Some(2));
    }
}
