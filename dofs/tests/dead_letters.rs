//! `dofs dead-letters` and `dofs worker` against a stub API: requests, output and exit codes.

#![expect(clippy::expect_used, reason = "a failing set-up fails the test")]

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use testkit::command::CommandOutput;
use testkit::process::Start;
use testkit::stub::Stub;
use testkit::system::System;
use testkit::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_dofs");
const ID: &str = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";
const TASK: &str = "018f2d6e-0000-7000-8000-000000000001";

fn build_command(url: &str, arguments: &str) -> Command {
    let arguments: Vec<_> = arguments.split(' ').chain(["--url", url]).collect();
    let start = Start::new(BINARY, &arguments).env("DOFS_LOG", "text").env("NO_COLOR", "1");
    start.env("USER", "alice").into_command()
}

fn run(url: &str, arguments: &str) -> CommandOutput {
    build_command(url, arguments).output().expect("the binary starts").into()
}

fn dofs(stub: &Stub, arguments: &str) -> CommandOutput {
    run(&stub.url(), arguments)
}

/// Returns a dead letter with two deliveries, the second of which ended its worker.
fn sample_dead_letter() -> Value {
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
            "order_id": ID,
            "customer_id": "cust-1",
            "items": [{"product_id": "prod-1", "quantity": 2}, {"product_id": "prod-2", "quantity": 1}],
            "total_quantity": 3,
            "status": "FAILED", "stage": "dead_letter", "attempt": 1, "deliveries": 2,
            "failure_code": "poison",
            "failure_reason": "2 deliveries have no recorded end",
            "reference": null,
            "revision": 6,
            "queued_at": "2026-01-02T03:04:03Z", "fulfilled_at": null,
            "failed_at": "2026-01-02T03:04:06Z",
            "received_at": "2026-01-02T03:04:00Z",
            "updated_at": "2026-01-02T03:04:06Z",
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
fn dead_letter_is_shown_with_attempts_and_advice() {
    let stub = Stub::start([(200, sample_dead_letter())]);
    let shown = dofs(&stub, &format!("dead-letters show {ID}"));
    assert!(shown.status.success(), "{shown:?}");
    insta::assert_snapshot!("dead_letter", shown.stdout);
    assert_eq!(stub.request_lines(), [format!("GET /v1/dead-letters/{ID}")]);

    let shown = dofs(&stub, &format!("dead-letters show {ID} --json"));
    assert_eq!(shown.json(), sample_dead_letter());
}

#[test]
fn advice_depends_on_the_current_state() {
    let show = |changes: &[(&str, Value)]| {
        let mut letter = sample_dead_letter();
        for (member, value) in changes {
            letter[*member] = value.clone();
        }
        let stub = Stub::start([(200, letter)]);
        let shown = dofs(&stub, &format!("dead-letters show {ID}")).stdout;
        let (_, next) = shown.split_once("What to do next:").expect("there is advice");
        (shown.lines().next().unwrap_or_default().to_owned(), next.to_owned())
    };
    let at = json!("2026-01-02T05:00:00Z");
    let redrive = format!("dofs dead-letters redrive {ID}");
    let discard = format!("dofs dead-letters discard {ID}");

    let (_, open) = show(&[("code", json!("retries_exhausted"))]);
    assert!(open.contains(&redrive) && open.contains(&discard), "{open}");
    assert!(open.contains("--if-match 6") && open.contains("dofs worker status"), "{open}");

    let (headline, mended) = show(&[("status", json!("FULFILLED")), ("resolved_at", at.clone())]);
    assert!(headline.ends_with("FULFILLED since 2026-01-02T05:00:00Z"), "{headline}");
    assert!(mended.contains("Nothing") && !mended.contains(&redrive), "{mended}");

    let (headline, again) = show(&[("status", json!("PROCESSING"))]);
    assert!(headline.ends_with("PROCESSING again"), "{headline}");
    assert!(again.contains("Wait") && !again.contains(&redrive), "{again}");

    let (headline, discarded) = show(&[("is_discarded", json!(true)), ("resolved_at", at)]);
    assert!(headline.ends_with("discarded at 2026-01-02T05:00:00Z"), "{headline}");
    assert!(discarded.contains(&redrive) && !discarded.contains(&discard), "{discarded}");

    let (_, refused) = show(&[("stage", json!("fulfillment")), ("code", json!("refused"))]);
    assert!(refused.contains(&redrive) && !refused.contains(&discard), "{refused}");
    let (_, invalid) = show(&[("stage", json!("validation"))]);
    assert!(
        invalid.contains("place a corrected order") && !invalid.contains(&redrive),
        "{invalid}"
    );
}

#[test]
fn list_shows_causes_and_newest_dead_letters() {
    let summary = json!({"total": 3, "groups": [{
        "stage": "dead_letter", "code": "poison", "count": 3, "oldest_age_seconds": 7_260,
        "oldest_failed_at": "2026-01-02T01:00:00Z", "newest_failed_at": "2026-01-02T03:00:00Z",
        "failed_last_hour": 1, "failed_previous_hour": 2,
    }]});
    let page = json!({"items": [{"order_id": ID, "code": "poison", "attempt": 1, "deliveries": 4,
        "reason": "a\nb", "failed_at": "2026-01-02T03:00:00Z", "stage": "dead_letter",
        "order": sample_dead_letter()["order"],
        "resolved_at": null}], "next_cursor": "abc"});
    let stub = Stub::start([(200, summary.clone()), (200, page.clone())]);
    let listed =
        dofs(&stub, "dead-letters list --code poison --customer cust-1 --older-than 60m --limit 1");
    assert!(listed.status.success(), "{listed:?}");
    let filter = "stage=dead_letter&code=poison&customer_id=cust-1&older_than=1h";
    assert_eq!(
        stub.request_lines(),
        [
            format!("GET /v1/dead-letters?{filter}"),
            format!("GET /v1/failed-orders?{filter}&limit=1")
        ]
    );
    let text = listed.stdout;
    assert!(text.contains("2h 1m ago") && text.contains(ID) && text.contains("a\\nb"), "{text}");
    assert!(text.contains("newest 1 of 3"), "{text}");

    let stub = Stub::start([(200, summary.clone()), (200, page.clone())]);
    let listed = dofs(&stub, "dead-letters list --stage fulfillment --json").json();
    assert_eq!(listed["groups"], summary["groups"]);
    assert_eq!((&listed["items"], &listed["next_cursor"]), (&page["items"], &json!("abc")));
    assert_eq!(stub.request_lines()[0], "GET /v1/dead-letters?stage=fulfillment");

    let nothing = json!({"total": 0, "groups": [], "items": [], "next_cursor": null});
    let stub = Stub::start([(200, nothing)]);
    assert_eq!(dofs(&stub, "dead-letters list").stdout, "none\n");
}

#[test]
fn one_order_is_redriven_with_or_without_correction() {
    let answer = json!({"order_id": ID, "status": "PROCESSING", "attempt": 2, "revision": 7});
    let stub = Stub::start([(202, answer.clone())]);
    let redriven = dofs(&stub, &format!("dead-letters redrive {ID}"));
    assert_eq!(redriven.stdout, format!("redriven: order {ID} is PROCESSING, attempt 2\n"));
    let corrected = format!(
        "dead-letters redrive {ID} --reason mended --actor bob --if-match 6 --customer-id cust-2 \
         --item prod-1:3 --item prod-2:1 --json"
    );
    assert_eq!(dofs(&stub, &corrected).json(), answer);

    let [bare, corrected] = &*stub.received_requests() else {
        panic!("{:?}", stub.received_requests())
    };
    assert_eq!(bare.line, format!("POST /v1/orders/{ID}/redrive"));
    assert_eq!((&bare.body, bare.header("if-match")), (&json!({"actor": "alice"}), None));
    let items =
        json!([{"product_id": "prod-1", "quantity": 3}, {"product_id": "prod-2", "quantity": 1}]);
    let body = json!({"reason": "mended", "actor": "bob", "customer_id": "cust-2", "items": items});
    assert_eq!((&corrected.body, corrected.header("if-match")), (&body, Some("\"6\"")));
}

#[test]
fn rejection_sets_exit_code_and_prints_problem_document() {
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
            refused.assert_failure(code, &format!("no, because {status}"));
            assert!(refused.stderr.contains(ID), "{refused:?}");
            assert_eq!(refused.stdout, "", "standard output is for results only");
            let refused = dofs(&stub, &format!("{arguments} --json"));
            assert_eq!((refused.status.code(), refused.stdout.as_str()), (Some(code), ""));
            let mut document: Value = serde_json::from_str(&refused.stderr).expect("JSON");
            let added = document.as_object_mut().expect("an object");
            assert_eq!(added.remove("exit_code"), Some(json!(code)));
            assert!(added.remove("hint").is_some(), "{refused:?}");
            assert_eq!(document, body);
        }
        let seen = stub.received_requests();
        let accepted = seen[0].header("accept").unwrap_or_default();
        assert!(accepted.contains("application/problem+json"), "{accepted}");
    }
}

#[test]
fn discard_sends_the_reason() {
    let answer = json!({"order_id": ID, "status": "FAILED", "revision": 7});
    let stub = Stub::start([(200, answer)]);
    let discarded = dofs(&stub, &format!("dead-letters discard {ID} --reason unwanted --yes"));
    assert_eq!(discarded.stdout, format!("discarded: order {ID} stays FAILED\n"));
    let seen = &stub.received_requests()[0];
    assert_eq!(seen.line, format!("POST /v1/dead-letters/{ID}/discard"));
    assert_eq!(seen.body, json!({"reason": "unwanted", "actor": "alice"}));
}

fn sample_task(state: &str, redriven: u64, failed: u64) -> Value {
    json!({"task_id": TASK, "kind": "redrive", "state": state,
        "filter": {"stage": "dead_letter", "code": null, "failed_before": null,
            "order_ids": [ID, ID], "customer_id": null},
        "rate_per_second": 50, "reason": "", "actor": "alice",
        "started_at": "2026-01-02T03:00:00Z", "ended_at": null, "total": 4, "redriven": redriven,
        "skipped": 1, "failed": failed, "waiting_for": null, "error": null})
}

#[test]
fn bulk_redrive_is_followed_to_its_end() {
    let ended = sample_task("succeeded", 3, 0);
    let stub = Stub::start([
        (202, sample_task("running", 0, 0)),
        (200, sample_task("running", 1, 0)),
        (200, ended.clone()),
    ]);
    let done = dofs(&stub, "dead-letters redrive --all --rate 50 --reason mended --yes");
    assert!(done.status.success(), "{done:?}");
    let watch = format!("GET /v1/ops/dead-letters/redrives/{TASK}");
    let begin = "POST /v1/ops/dead-letters/redrives".to_owned();
    assert_eq!(stub.request_lines(), [begin, watch.clone(), watch]);
    let body = json!({"reason": "mended", "actor": "alice", "filter": {"stage": "dead_letter"},
        "rate_per_second": 50});
    assert_eq!(stub.received_requests()[0].body, body);
    assert!(done.stdout.contains("4: 3 redriven, 1 skipped, 0 failed"), "{done:?}");
    assert!(done.stderr.contains("redriving: 1 of 4 (1 skipped, 0 failed)"), "{done:?}");

    let stub = Stub::start([(202, sample_task("running", 0, 0)), (200, ended.clone())]);
    let quiet = dofs(&stub, "dead-letters redrive --all --yes --json --quiet");
    assert_eq!((quiet.json(), quiet.stderr), (ended, String::new()));
}

#[test]
fn filter_contains_only_the_given_options() {
    let filters = [
        (
            "--code poison --older-than 48h --customer cust-1".to_owned(),
            json!({"stage": "dead_letter", "code": "poison", "older_than": "2d",
                "customer_id": "cust-1"}),
        ),
        ("--stage fulfillment".to_owned(), json!({"stage": "fulfillment"})),
        // Orders selected by id may have failed at any stage.
        (format!("--order {ID} --order {TASK}"), json!({"order_ids": [ID, TASK]})),
    ];
    for (arguments, filter) in filters {
        let stub = Stub::start([(202, sample_task("running", 0, 0))]);
        let begun = dofs(&stub, &format!("dead-letters redrive {arguments} --yes --detach"));
        assert!(begun.status.success(), "{begun:?}");
        assert!(begun.stdout.contains(&format!("redrives watch {TASK}")), "{begun:?}");
        assert_eq!(stub.received_requests()[0].body, json!({"actor": "alice", "filter": filter}));
        assert_eq!(stub.request_lines().len(), 1, "the task is not followed");
    }
}

#[test]
fn incomplete_redrive_is_a_failure() {
    let mut broken = sample_task("failed", 2, 0);
    broken["error"] = json!("event store unavailable");
    for (ended, words) in [
        (broken, "event store unavailable"),
        (sample_task("succeeded", 2, 1), "1 failed"),
        (sample_task("cancelled", 2, 0), "cancelled"),
    ] {
        let stub = Stub::start([(202, ended)]);
        let done = dofs(&stub, "dead-letters redrive --all --yes");
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert!(done.stdout.contains(words), "{done:?}");
    }
    let active = json!({"error": "a redrive is running"});
    let stub = Stub::start([(409, active)]);
    let refused = dofs(&stub, "dead-letters redrive --all --yes --json");
    refused.assert_failure(5, "a redrive is running");
    let document: Value = serde_json::from_str(&refused.stderr).expect("a document");
    assert_eq!((refused.stdout.as_str(), &document["code"]), ("", &json!("conflict")));
}

#[test]
fn dry_run_prints_the_preview_only() {
    let plan = json!({"total": 2, "redrive": 1, "skip": 1, "truncated": false, "items": [
        {"order_id": ID, "stage": "dead_letter", "code": "poison", "reason": "r", "attempt": 1,
            "failed_at": "2026-01-02T03:00:00Z", "action": "redrive", "why": "it is a dead letter"},
        {"order_id": TASK, "stage": "dead_letter", "code": "poison", "reason": "r", "attempt": 1,
            "failed_at": "2026-01-02T03:00:00Z", "action": "skip", "why": "it is PROCESSING"},
    ]});
    let stub = Stub::start([(200, plan.clone())]);
    let shown = dofs(&stub, "dead-letters redrive --code poison --dry-run");
    assert!(shown.status.success(), "{shown:?}");
    let text = shown.stdout;
    assert!(text.contains("2 orders: 1 would be redriven, 1 would be skipped"), "{text}");
    assert!(text.contains("it is PROCESSING"), "{text}");
    assert_eq!(dofs(&stub, "dead-letters redrive --all --dry-run --json").json(), plan);
    for seen in stub.received_requests() {
        assert_eq!(seen.body["dry_run"], true, "{seen:?}");
    }
}

#[test]
fn bulk_redrive_without_terminal_requires_yes() {
    let stub = Stub::start([(202, sample_task("running", 0, 0))]);
    let refused = dofs(&stub, "dead-letters redrive --all");
    refused.assert_failure(2, "hint: pass `--yes`");
    assert_eq!(stub.request_lines(), Vec::<String>::new());
}

#[test]
fn interrupted_command_prints_how_to_continue() {
    let stub = Stub::start([(202, sample_task("running", 0, 0))]);
    let mut command = build_command(&stub.url(), "dead-letters redrive --all --yes --json");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child: Child = child.expect("the binary starts");
    wait::until("the task is followed", || stub.request_lines().get(1).cloned());
    let sent = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    let interrupted = child.wait_with_output().expect("the command ends");
    let interrupted = CommandOutput::from(interrupted);
    interrupted.assert_exit(130, &format!("dofs dead-letters redrives watch {TASK}"));
    assert!(interrupted.stderr.contains(&format!("redrives cancel {TASK}")), "{interrupted:?}");
    assert_eq!(interrupted.json()["task_id"], TASK);
    assert!(
        !stub.request_lines().iter().any(|line| line.starts_with("DELETE")),
        "{:?}",
        stub.request_lines()
    );
}

#[test]
fn watch_survives_a_short_outage() {
    let away = (503, json!({"error": "Event store unavailable"}));
    let answers =
        [(200, sample_task("running", 0, 0)), away, (200, sample_task("succeeded", 3, 0))];
    let stub = Stub::start(answers);
    let watched = dofs(&stub, &format!("dead-letters redrives watch {TASK} --json"));
    assert_eq!(watched.json(), sample_task("succeeded", 3, 0), "only the last task is printed");
    assert!(watched.status.success(), "{watched:?}");
}

#[test]
fn redrives_are_listed_shown_and_cancelled() {
    let list = json!({"items": [sample_task("running", 1, 0)], "next_cursor": null});
    let stub = Stub::start([
        (200, list.clone()),
        (200, list),
        (200, sample_task("running", 1, 0)),
        (202, sample_task("running", 1, 0)),
    ]);
    for arguments in ["dead-letters redrives", "dead-letters redrives list"] {
        let listed = dofs(&stub, arguments);
        assert!(listed.stdout.contains(TASK), "{listed:?}");
    }
    let shown = dofs(&stub, &format!("dead-letters redrives show {TASK}")).stdout;
    assert!(shown.contains("stage dead_letter, 2 order ids"), "{shown}");
    let cancelled = dofs(&stub, &format!("dead-letters redrives cancel {TASK}"));
    assert!(cancelled.status.success(), "{cancelled:?}");
    let redrives = "/v1/ops/dead-letters/redrives";
    let expected = [
        format!("GET {redrives}"),
        format!("GET {redrives}"),
        format!("GET {redrives}/{TASK}"),
        format!("DELETE {redrives}/{TASK}?actor=alice"),
    ];
    assert_eq!(stub.request_lines(), expected);

    let stub = Stub::start([(404, json!({"error": "no such redrive"}))]);
    let unknown = dofs(&stub, &format!("dead-letters redrives watch {TASK}"));
    unknown.assert_failure(4, TASK);
}

#[test]
fn workers_are_paused_resumed_and_shown() {
    let status = json!({"paused": true, "since": "2026-01-02T03:00:00Z", "actor": "alice",
        "reason": "gateway is down", "breaker": "open", "workers": [{"worker": "w-1",
            "connected": false, "paused": true, "breaker": "open", "since": "2026-01-02T02:59:00Z", "error": "timed out",
            "watchdog_reconnects": 2, "reported_at": "2026-01-02T03:00:01Z"}],
        "queue": {"waiting": 7, "in_flight": 0, "parked": 3, "retrying": 1}, "unavailable": {}});
    let stub = Stub::start([(200, status.clone())]);
    let mut pause = build_command(&stub.url(), "worker pause");
    let paused = pause.args(["--reason", "gateway is down"]).output().expect("the binary starts");
    let text = CommandOutput::from(paused).stdout;
    assert!(text.starts_with("paused since 2026-01-02T03:00:00Z by alice: gateway is down\n"));
    assert!(text.contains("7 waiting, 0 in flight, 1 retrying, 3 parked"), "{text}");
    assert!(text.contains("w-1") && text.contains("timed out"), "{text}");
    assert_eq!(dofs(&stub, "worker status --json").json(), status);
    assert!(dofs(&stub, "worker resume --actor bob").status.success());

    let seen = stub.received_requests();
    let expected =
        ["POST /v1/ops/worker/pause", "GET /v1/ops/worker", "POST /v1/ops/worker/resume"];
    assert_eq!(stub.request_lines(), expected);
    assert_eq!(seen[0].body, json!({"reason": "gateway is down", "actor": "alice"}));
    assert_eq!(seen[2].body, json!({"actor": "bob"}));

    let idle = json!({"paused": false, "since": null, "actor": null, "reason": null,
        "breaker": "closed", "workers": [], "queue": {"waiting": 0, "in_flight": 0, "parked": 0,
        "retrying": 0}, "unavailable": {}});
    let shown = dofs(&Stub::start([(200, idle)]), "worker status").stdout;
    assert!(shown.starts_with("not paused\nbreaker  closed\n"), "{shown}");
    assert!(shown.contains("no worker is connected"), "{shown}");

    let unconfirmed = json!({"paused": true, "workers": [{"worker": "w-1", "connected": true,
        "paused": false, "breaker": "closed", "watchdog_reconnects": 0}],
        "unconfirmed": ["w-1"], "queue": {}, "unavailable": {}});
    let paused = dofs(&Stub::start([(200, unconfirmed)]), "worker pause");
    paused.assert_exit(1, "not confirmed in time by w-1");

    let away = json!({"paused": null, "workers": null, "unconfirmed": null, "queue": {},
        "orders_processing": 7, "oldest_waiting_seconds": 61.5,
        "unavailable": {"event_store": "it does not answer"}});
    let shown = dofs(&Stub::start([(200, away)]), "worker status").stdout;
    assert!(shown.starts_with("unknown whether paused\n"), "{shown}");
    assert!(shown.contains("7 processing, oldest waits 62 s"), "{shown}");
    assert!(shown.contains("event store: it does not answer"), "{shown}");
}

#[test]
fn invalid_url_is_a_usage_error() {
    for url in ["127.0.0.1:8080", "localhost:8080", "http://", "ftp://host"] {
        let refused = run(url, "dead-letters list");
        refused.assert_failure(2, &format!("invalid API URL `{url}`"));
        assert!(refused.stderr.contains("hint: use the form"), "{refused:?}");
    }
}

#[test]
fn dead_letter_of_a_real_system_is_listed_and_shown() {
    let failing = [
        ("DOFS__FULFILLMENT__ERROR_RATE", "1.0"),
        ("DOFS__FULFILLMENT__BACKOFF_MS", "1"),
        ("DOFS__FULFILLMENT__BACKOFF_MAX_MS", "1"),
    ];
    let system = System::start(BINARY, &failing);
    let id = system.api.place_valid_order();
    system.api.wait_until_projected(&id);
    let run = |arguments: &str| run(&system.api.url(), arguments);

    let listed = run("dead-letters list --json").json();
    assert_eq!(listed["groups"][0]["code"], "retries_exhausted");
    assert_eq!((&listed["total"], &listed["items"][0]["order_id"]), (&json!(1), &json!(id)));
    assert!(run("dead-letters list").stdout.contains(&id));
    assert_eq!(run("dead-letters list --older-than 1h").stdout, "none\n");

    let shown = run(&format!("dead-letters show {id}")).stdout;
    let wanted = ["delivery 3 started", "failed after 4 deliveries"];
    assert!(wanted.iter().all(|text| shown.contains(text)), "{shown}");
    let unknown = run(&format!("dead-letters show {ID}"));
    unknown.assert_failure(4, &format!("Order {ID} not found"));
}
