//! `dofs dead-letters` and `dofs worker` against an API that answers from a list: what is sent, what
//! is printed where, and the exit codes.

#![expect(clippy::expect_used, reason = "what a test cannot go on without ends it")]

use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use testkit::stub::Stub;
use testkit::system::System;
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const ID: &str = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";
const TASK: &str = "018f2d6e-0000-7000-8000-000000000001";

fn command(url: &str, arguments: &str) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOFS_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments.split(' '))
        .args(["--url", url])
        .env("USER", "alice")
        .env("NO_COLOR", "1");
    command
}

fn dofs(stub: &Stub, arguments: &str) -> Output {
    command(&stub.url(), arguments).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, words: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(stderr(output).contains(words), "{}", stderr(output));
}

/// A dead letter as the API tells it: two deliveries, the second of which ended its worker.
fn letter() -> Value {
    let fact = |revision: u64| {
        json!({
            "event_id": format!("018f2d6e-0000-7000-8000-0000000000{revision:02}"),
            "revision": revision,
            "recorded_at": format!("2026-01-02T03:04:{revision:02}Z"),
            "actor": "fulfillment-worker",
            "causation_id": "018f2d6e-0000-7000-8000-000000000003",
            "correlation_id": "018f2d6e-0000-7000-8000-00000000000c",
        })
    };
    let with = |mut fact: Value, members: Value| {
        for (name, value) in members.as_object().into_iter().flatten() {
            fact[name] = value.clone();
        }
        fact
    };
    let failure =
        json!({"class": "transient", "error": "gateway \u{1b}[31mtimed out", "retry_in_ms": 250});
    let end = json!({"outcome": "failed", "stage": "dead_letter", "code": "poison", "deliveries": 2,
        "reason": "2 deliveries have no recorded end", "at": "2026-01-02T03:04:06Z"});
    json!({
        "order_id": ID,
        "status": "FAILED",
        "revision": 6,
        "stage": "dead_letter",
        "code": "poison",
        "reason": "2 deliveries have no recorded end",
        "attempt": 1,
        "deliveries": 2,
        "failed_at": "2026-01-02T03:04:06Z",
        "order": {
            "customer_id": "cust-1",
            "items": [{"product_id": "prod-1", "quantity": 2}, {"product_id": "prod-2", "quantity": 1}],
            "received_at": "2026-01-02T03:04:00Z",
        },
        "resolved_at": null,
        "is_discarded": false,
        "attempts": [{
            "attempt": 1,
            "customer_id": "cust-1",
            "items": [],
            "queued": [with(fact(3), json!({"reason": null, "actor": "customer"}))],
            "deliveries": [
                {"delivery": 1, "started": null, "failed": with(fact(4), failure)},
                {"delivery": 2, "started": fact(5), "failed": null},
            ],
            "ended": with(fact(6), end),
            "discarded": null,
        }],
    })
}

#[test]
fn dead_letter_is_told_so_that_it_can_be_decided_upon() {
    let stub = Stub::start([(200, letter())]);
    let shown = dofs(&stub, &format!("dead-letters show {ID}"));
    assert!(shown.status.success(), "{shown:?}");
    insta::assert_snapshot!("dead_letter", stdout(&shown));
    assert_eq!(stub.lines(), [format!("GET /v1/dead-letters/{ID}")]);

    let shown = dofs(&stub, &format!("dead-letters show {ID} --json"));
    assert_eq!(json_of(&shown), letter());
}

#[test]
fn what_to_do_next_follows_from_what_the_order_is_now() {
    let told = |changes: &[(&str, Value)]| {
        let mut letter = letter();
        for (member, value) in changes {
            letter[*member] = value.clone();
        }
        let stub = Stub::start([(200, letter)]);
        let shown = stdout(&dofs(&stub, &format!("dead-letters show {ID}")));
        let (_, next) = shown.split_once("What to do next:").expect("there is advice");
        (shown.lines().next().unwrap_or_default().to_owned(), next.to_owned())
    };
    let at = json!("2026-01-02T05:00:00Z");
    let redrive = format!("dofs dead-letters redrive {ID}");
    let discard = format!("dofs dead-letters discard {ID}");

    let (_, open) = told(&[("code", json!("retries_exhausted"))]);
    assert!(open.contains(&redrive) && open.contains(&discard), "{open}");
    assert!(open.contains("--if-match 6") && open.contains("dofs worker status"), "{open}");

    let (headline, mended) = told(&[("status", json!("FULFILLED")), ("resolved_at", at.clone())]);
    assert!(headline.ends_with("FULFILLED since 2026-01-02T05:00:00Z"), "{headline}");
    assert!(mended.contains("Nothing") && !mended.contains(&redrive), "{mended}");

    let (headline, again) = told(&[("status", json!("PROCESSING"))]);
    assert!(headline.ends_with("PROCESSING again"), "{headline}");
    assert!(again.contains("Wait") && !again.contains(&redrive), "{again}");

    let (headline, discarded) = told(&[("is_discarded", json!(true)), ("resolved_at", at)]);
    assert!(headline.ends_with("discarded at 2026-01-02T05:00:00Z"), "{headline}");
    assert!(discarded.contains(&redrive) && !discarded.contains(&discard), "{discarded}");

    let (_, refused) = told(&[("stage", json!("fulfillment")), ("code", json!("refused"))]);
    assert!(refused.contains(&redrive) && !refused.contains(&discard), "{refused}");
    let (_, invalid) = told(&[("stage", json!("validation"))]);
    assert!(
        invalid.contains("place a corrected order") && !invalid.contains(&redrive),
        "{invalid}"
    );
}

#[test]
fn list_counts_by_cause_and_shows_the_newest() {
    let counts = json!({"total": 3, "groups": [{
        "stage": "dead_letter", "code": "poison", "count": 3, "oldest_age_seconds": 7_260,
        "oldest_failed_at": "2026-01-02T01:00:00Z", "newest_failed_at": "2026-01-02T03:00:00Z",
    }]});
    let page = json!({"items": [{"order_id": ID, "code": "poison", "attempt": 1, "deliveries": 4,
        "reason": "a\nb", "failed_at": "2026-01-02T03:00:00Z"}], "next_cursor": "abc"});
    let stub = Stub::start([(200, counts.clone()), (200, page.clone())]);
    let listed =
        dofs(&stub, "dead-letters list --code poison --customer cust-1 --older-than 60m --limit 1");
    assert!(listed.status.success(), "{listed:?}");
    let filter = "stage=dead_letter&code=poison&customer_id=cust-1&older_than=1h";
    assert_eq!(
        stub.lines(),
        [
            format!("GET /v1/dead-letters?{filter}"),
            format!("GET /v1/failed-orders?{filter}&limit=1")
        ]
    );
    let text = stdout(&listed);
    assert!(text.contains("2h 1m ago") && text.contains(ID) && text.contains("a\\nb"), "{text}");
    assert!(text.contains("the newest 1 of 3"), "{text}");

    let stub = Stub::start([(200, counts.clone()), (200, page.clone())]);
    let listed = json_of(&dofs(&stub, "dead-letters list --stage fulfillment --json"));
    assert_eq!(listed["groups"], counts["groups"]);
    assert_eq!((&listed["items"], &listed["next_cursor"]), (&page["items"], &json!("abc")));
    assert_eq!(stub.lines()[0], "GET /v1/dead-letters?stage=fulfillment");

    let nothing = json!({"total": 0, "groups": [], "items": [], "next_cursor": null});
    let stub = Stub::start([(200, nothing)]);
    assert_eq!(stdout(&dofs(&stub, "dead-letters list")), "none\n");
}

#[test]
fn one_order_is_redriven_corrected_or_as_it_is() {
    let answer = json!({"order_id": ID, "status": "PROCESSING", "attempt": 2, "revision": 7});
    let stub = Stub::start([(202, answer.clone())]);
    let redriven = dofs(&stub, &format!("dead-letters redrive {ID}"));
    assert_eq!(stdout(&redriven), format!("redriven: order {ID} is PROCESSING, attempt 2\n"));
    let corrected = format!(
        "dead-letters redrive {ID} --reason mended --actor bob --if-match 6 --customer-id cust-2 \
         --item prod-1:3 --item prod-2:1 --json"
    );
    assert_eq!(json_of(&dofs(&stub, &corrected)), answer);

    let [bare, corrected] = &*stub.seen() else { panic!("{:?}", stub.seen()) };
    assert_eq!(bare.line, format!("POST /v1/orders/{ID}/redrive"));
    assert_eq!((&bare.body, bare.header("if-match")), (&json!({"actor": "alice"}), None));
    let items =
        json!([{"product_id": "prod-1", "quantity": 3}, {"product_id": "prod-2", "quantity": 1}]);
    let body = json!({"reason": "mended", "actor": "bob", "customer_id": "cust-2", "items": items});
    assert_eq!((&corrected.body, corrected.header("if-match")), (&body, Some("\"6\"")));
}

#[test]
fn refusal_has_its_exit_code_names_the_order_and_with_json_is_a_problem_document() {
    let codes = [(404, 4), (409, 5), (412, 5), (422, 1), (503, 7)];
    for (status, code) in codes {
        let detail = format!("no, because {status}");
        let body = json!({"type": "urn:dofs:problem:conflict", "title": "No", "status": status,
            "detail": detail, "code": "conflict", "errors": [], "request_id": "r-1", "error": detail});
        let stub = Stub::start([(status, body.clone())]);
        for arguments in [
            format!("dead-letters redrive {ID}"),
            format!("dead-letters discard {ID} --reason old --yes"),
            format!("dead-letters show {ID}"),
        ] {
            let refused = dofs(&stub, &arguments);
            assert_fails(&refused, code, &format!("no, because {status}"));
            assert!(stderr(&refused).contains(ID), "{refused:?}");
            assert_eq!(stdout(&refused), "", "results only on stdout");
            let refused = dofs(&stub, &format!("{arguments} --json"));
            assert_eq!((refused.status.code(), stdout(&refused)), (Some(code), String::new()));
            let mut document: Value = serde_json::from_str(&stderr(&refused)).expect("JSON");
            let added = document.as_object_mut().expect("an object");
            assert_eq!(added.remove("exit_code"), Some(json!(code)));
            assert!(added.remove("hint").is_some(), "{refused:?}");
            assert_eq!(document, body);
        }
        let seen = stub.seen();
        let accepted = seen[0].header("accept").unwrap_or_default();
        assert!(accepted.contains("application/problem+json"), "{accepted}");
    }
}

#[test]
fn discard_says_why() {
    let answer = json!({"order_id": ID, "status": "FAILED", "revision": 7});
    let stub = Stub::start([(200, answer)]);
    let discarded = dofs(&stub, &format!("dead-letters discard {ID} --reason unwanted --yes"));
    assert_eq!(stdout(&discarded), format!("discarded: order {ID} stays FAILED\n"));
    let seen = &stub.seen()[0];
    assert_eq!(seen.line, format!("POST /v1/dead-letters/{ID}/discard"));
    assert_eq!(seen.body, json!({"reason": "unwanted", "actor": "alice"}));
}

fn task(state: &str, redriven: u64, failed: u64) -> Value {
    json!({"task_id": TASK, "kind": "redrive", "state": state,
        "filter": {"stage": "dead_letter", "code": null, "failed_before": null,
            "order_ids": [ID, ID], "customer_id": null},
        "rate_per_second": 50, "reason": null, "actor": "alice",
        "started_at": "2026-01-02T03:00:00Z", "ended_at": null, "total": 4, "redriven": redriven,
        "skipped": 1, "failed": failed, "error": null})
}

#[test]
fn many_orders_are_redriven_by_a_task_that_is_followed_to_its_end() {
    let ended = task("succeeded", 3, 0);
    let stub = Stub::start([
        (202, task("running", 0, 0)),
        (200, task("running", 1, 0)),
        (200, ended.clone()),
    ]);
    let done = dofs(&stub, "dead-letters redrive --all --rate 50 --reason mended --yes");
    assert!(done.status.success(), "{done:?}");
    let watch = format!("GET /v1/ops/dead-letters/redrives/{TASK}");
    let begin = "POST /v1/ops/dead-letters/redrives".to_owned();
    assert_eq!(stub.lines(), [begin, watch.clone(), watch]);
    let body = json!({"reason": "mended", "actor": "alice", "filter": {"stage": "dead_letter"},
        "rate_per_second": 50});
    assert_eq!(stub.seen()[0].body, body);
    assert!(stdout(&done).contains("4: 3 redriven, 1 skipped, 0 failed"), "{done:?}");
    assert!(stderr(&done).contains("redriving: 1 of 4 (1 skipped, 0 failed)"), "{done:?}");

    let stub = Stub::start([(202, task("running", 0, 0)), (200, ended.clone())]);
    let quiet = dofs(&stub, "dead-letters redrive --all --yes --json --quiet");
    assert_eq!((json_of(&quiet), stderr(&quiet)), (ended, String::new()));
}

#[test]
fn filter_says_what_was_asked_for_and_no_more() {
    let filters = [
        (
            "--code poison --older-than 48h --customer cust-1".to_owned(),
            json!({"stage": "dead_letter", "code": "poison", "older_than": "2d",
                "customer_id": "cust-1"}),
        ),
        ("--stage fulfillment".to_owned(), json!({"stage": "fulfillment"})),
        // Whatever stage they failed at.
        (format!("--order {ID} --order {TASK}"), json!({"order_ids": [ID, TASK]})),
    ];
    for (arguments, filter) in filters {
        let stub = Stub::start([(202, task("running", 0, 0))]);
        let begun = dofs(&stub, &format!("dead-letters redrive {arguments} --yes --detach"));
        assert!(begun.status.success(), "{begun:?}");
        assert!(stdout(&begun).contains(&format!("redrives watch {TASK}")), "{begun:?}");
        assert_eq!(stub.seen()[0].body, json!({"actor": "alice", "filter": filter}));
        assert_eq!(stub.lines().len(), 1, "nobody waits");
    }
}

#[test]
fn redrive_that_leaves_something_undone_is_a_failure() {
    let mut broken = task("failed", 2, 0);
    broken["error"] = json!("event store unavailable");
    for (ended, words) in [
        (broken, "event store unavailable"),
        (task("succeeded", 2, 1), "1 failed"),
        (task("cancelled", 2, 0), "cancelled"),
    ] {
        let stub = Stub::start([(202, ended)]);
        let done = dofs(&stub, "dead-letters redrive --all --yes");
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert!(stdout(&done).contains(words), "{done:?}");
    }
    let active = json!({"error": "a redrive is running"});
    let stub = Stub::start([(409, active)]);
    let refused = dofs(&stub, "dead-letters redrive --all --yes --json");
    assert_fails(&refused, 5, "a redrive is running");
    let document: Value = serde_json::from_str(&stderr(&refused)).expect("a document");
    assert_eq!((stdout(&refused), &document["code"]), (String::new(), &json!("conflict")));
}

#[test]
fn plan_is_shown_and_nothing_is_begun() {
    let plan = json!({"total": 2, "redrive": 1, "skip": 1, "truncated": false, "items": [
        {"order_id": ID, "stage": "dead_letter", "code": "poison", "reason": "r", "attempt": 1,
            "failed_at": "2026-01-02T03:00:00Z", "action": "redrive", "why": "it is a dead letter"},
        {"order_id": TASK, "stage": "dead_letter", "code": "poison", "reason": "r", "attempt": 1,
            "failed_at": "2026-01-02T03:00:00Z", "action": "skip", "why": "it is PROCESSING"},
    ]});
    let stub = Stub::start([(200, plan.clone())]);
    let shown = dofs(&stub, "dead-letters redrive --code poison --dry-run");
    assert!(shown.status.success(), "{shown:?}");
    let text = stdout(&shown);
    assert!(text.contains("2 orders: 1 would be redriven, 1 would be skipped"), "{text}");
    assert!(text.contains("it is PROCESSING"), "{text}");
    assert_eq!(json_of(&dofs(&stub, "dead-letters redrive --all --dry-run --json")), plan);
    for seen in stub.seen() {
        assert_eq!(seen.body["dry_run"], true, "{seen:?}");
    }
}

#[test]
fn nothing_is_begun_unconfirmed_where_nobody_can_be_asked() {
    let stub = Stub::start([(202, task("running", 0, 0))]);
    let refused = dofs(&stub, "dead-letters redrive --all");
    assert_fails(&refused, 2, "hint: say `--yes`");
    assert_eq!(stub.lines(), Vec::<String>::new());
}

#[test]
fn interrupted_command_leaves_the_task_running_and_says_how_to_go_on() {
    let stub = Stub::start([(202, task("running", 0, 0))]);
    let mut command = command(&stub.url(), "dead-letters redrive --all --yes --json");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child: Child = child.expect("the binary starts");
    wait::until("the task is followed", || stub.lines().get(1).cloned());
    let sent = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    let left = child.wait_with_output().expect("the command ends");
    assert_fails(&left, 130, &format!("dofs dead-letters redrives watch {TASK}"));
    assert!(stderr(&left).contains(&format!("redrives cancel {TASK}")), "{left:?}");
    assert_eq!(json_of(&left)["task_id"], TASK);
    assert!(!stub.lines().iter().any(|it| it.starts_with("DELETE")), "{:?}", stub.lines());
}

#[test]
fn api_that_is_away_for_a_moment_does_not_end_the_watch() {
    let away = (503, json!({"error": "Event store unavailable"}));
    let answers = [(200, task("running", 0, 0)), away, (200, task("succeeded", 3, 0))];
    let stub = Stub::start(answers);
    let watched = dofs(&stub, &format!("dead-letters redrives watch {TASK} --json"));
    assert_eq!(json_of(&watched), task("succeeded", 3, 0), "one answer, and no refusal");
    assert!(watched.status.success(), "{watched:?}");
}

#[test]
fn redrives_are_listed_shown_and_cancelled() {
    let list = json!({"items": [task("running", 1, 0)], "next_cursor": null});
    let stub = Stub::start([
        (200, list.clone()),
        (200, list),
        (200, task("running", 1, 0)),
        (202, task("running", 1, 0)),
    ]);
    for arguments in ["dead-letters redrives", "dead-letters redrives list"] {
        let listed = dofs(&stub, arguments);
        assert!(stdout(&listed).contains(TASK), "{listed:?}");
    }
    let shown = stdout(&dofs(&stub, &format!("dead-letters redrives show {TASK}")));
    assert!(shown.contains("stage dead_letter, order_ids 2 named"), "{shown}");
    let cancelled = dofs(&stub, &format!("dead-letters redrives cancel {TASK}"));
    assert!(cancelled.status.success(), "{cancelled:?}");
    let redrives = "/v1/ops/dead-letters/redrives";
    let expected = [
        format!("GET {redrives}"),
        format!("GET {redrives}"),
        format!("GET {redrives}/{TASK}"),
        format!("DELETE {redrives}/{TASK}?actor=alice"),
    ];
    assert_eq!(stub.lines(), expected);

    let stub = Stub::start([(404, json!({"error": "no such redrive"}))]);
    let unknown = dofs(&stub, &format!("dead-letters redrives watch {TASK}"));
    assert_fails(&unknown, 4, TASK);
}

#[test]
fn workers_are_paused_resumed_and_shown() {
    let status = json!({"paused": true, "since": "2026-01-02T03:00:00Z", "actor": "alice",
        "reason": "gateway is down", "breaker": "open", "workers": [{"worker": "w-1",
            "breaker": "open", "since": "2026-01-02T02:59:00Z", "error": "timed out",
            "watchdog_reconnects": 2, "reported_at": "2026-01-02T03:00:01Z"}],
        "queue": {"waiting": 7, "in_flight": 0, "parked": 3, "retrying": 1}});
    let stub = Stub::start([(200, status.clone())]);
    let mut pause = command(&stub.url(), "worker pause");
    let paused = pause.args(["--reason", "gateway is down"]).output().expect("the binary starts");
    let text = stdout(&paused);
    assert!(text.starts_with("paused since 2026-01-02T03:00:00Z by alice: gateway is down\n"));
    assert!(text.contains("7 waiting, 0 in flight, 1 retrying, 3 parked"), "{text}");
    assert!(text.contains("w-1") && text.contains("timed out"), "{text}");
    assert_eq!(json_of(&dofs(&stub, "worker status --json")), status);
    assert!(dofs(&stub, "worker resume --actor bob").status.success());

    let seen = stub.seen();
    let expected =
        ["POST /v1/ops/worker/pause", "GET /v1/ops/worker", "POST /v1/ops/worker/resume"];
    assert_eq!(stub.lines(), expected);
    assert_eq!(seen[0].body, json!({"reason": "gateway is down", "actor": "alice"}));
    assert_eq!(seen[2].body, json!({"actor": "bob"}));

    let idle = json!({"paused": false, "since": null, "actor": null, "reason": null,
        "breaker": "closed", "workers": [], "queue": {"waiting": 0, "in_flight": 0, "parked": 0,
        "retrying": 0}});
    let shown = stdout(&dofs(&Stub::start([(200, idle)]), "worker status"));
    assert!(shown.starts_with("not paused\nbreaker  closed\n"), "{shown}");
    assert!(shown.contains("no worker is connected"), "{shown}");

    let unconfirmed = json!({"paused": true, "workers": [{"worker": "w-1", "connected": true}],
        "unconfirmed": ["w-1"], "queue": {}});
    let paused = dofs(&Stub::start([(200, unconfirmed)]), "worker pause");
    assert_fails(&paused, 1, "not confirmed in time by w-1");

    let away = json!({"paused": null, "workers": null, "unconfirmed": null, "queue": {},
        "orders_processing": 7, "oldest_waiting_seconds": 61.5,
        "unavailable": {"event_store": "it does not answer"}});
    let shown = stdout(&dofs(&Stub::start([(200, away)]), "worker status"));
    assert!(shown.starts_with("unknown whether paused\n"), "{shown}");
    assert!(shown.contains("7 processing, oldest waits 62 s"), "{shown}");
    assert!(shown.contains("event store: it does not answer"), "{shown}");
}

#[test]
fn address_that_is_none_is_wrong_use() {
    for url in ["127.0.0.1:8080", "localhost:8080", "http://", "ftp://host"] {
        let refused = command(url, "dead-letters list").output().expect("the binary starts");
        assert_fails(&refused, 2, &format!("`{url}` cannot be used"));
        assert!(stderr(&refused).contains("hint: write it like"), "{refused:?}");
    }
}

#[test]
fn real_dead_letter_is_counted_listed_and_told() {
    let failing = [
        ("DOFS__FULFILLMENT__ERROR_RATE", "1.0"),
        ("DOFS__FULFILLMENT__BACKOFF_MS", "1"),
        ("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "1"),
    ];
    let system = System::start(BINARY, &failing);
    let id = system.api.accepted();
    system.api.projected(&id);
    let run = |arguments: &str| command(&system.api.url(), arguments).output().expect("it starts");

    let listed = json_of(&run("dead-letters list --json"));
    assert_eq!(listed["groups"][0]["code"], "retries_exhausted");
    assert_eq!((&listed["total"], &listed["items"][0]["order_id"]), (&json!(1), &json!(id)));
    assert!(stdout(&run("dead-letters list")).contains(&id));
    assert_eq!(stdout(&run("dead-letters list --older-than 1h")), "none\n");

    let told = stdout(&run(&format!("dead-letters show {id}")));
    let wanted = ["delivery 3 began", "failed after 4 deliveries"];
    assert!(wanted.iter().all(|it| told.contains(it)), "{told}");
    let unknown = run(&format!("dead-letters show {ID}"));
    assert_fails(&unknown, 4, &format!("Order {ID} not found"));
}
