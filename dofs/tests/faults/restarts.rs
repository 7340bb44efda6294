//! Processes killed or stopped under load, and outages of the databases.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::api::{Answer, Api, valid_order};
use testkit::process::Start;
use testkit::{postgres, wait};

use crate::fixture::{
    BINARY, Customers, SeparateProcesses, assert_all_ended_once, start_node, with_fast_retries,
};

#[test]
fn kills_under_load_lose_no_accepted_order() {
    let data = tempfile::tempdir().unwrap();
    let mut accepted = Vec::new();
    for n_orders in [150, 300] {
        let (mut process, api) = with_fast_retries(Start::dev(BINARY, data.path())).spawn_api();
        let customers = Customers::new(16);
        customers.place_during(&api, || {
            customers.wait_for_accepted(n_orders);
            process.kill();
        });
        accepted.extend(customers.into_accepted());
    }
    let (_process, api) = with_fast_retries(Start::dev(BINARY, data.path())).spawn_api();
    assert!(accepted.len() >= 450);
    assert_all_ended_once(&api, &accepted);

    // The read model and the fold of the stream give the same state of every order.
    wait::until("the projection has caught up", || {
        let stats = api.get("/v1/stats").json();
        let done = stats["projection"]["lag_events"] == 0 && stats["orders"]["PROCESSING"] == 0;
        done.then_some(())
    });
    for id in &accepted {
        let row = api.get(&format!("/order/{id}")).json();
        let history = api.get(&format!("/v1/orders/{id}/history")).json();
        let mut folded =
            history["events"].as_array().unwrap().last().unwrap()["state_after"].clone();
        folded["source"] = json!("table");
        assert_eq!(row, folded);
    }
}

fn assert_separate_roles_work(system: &SeparateProcesses) {
    let mut api = system.serve(&["api"]);
    let mut worker = system.serve(&["worker"]);
    let mut projector = system.serve(&["projector"]);
    let client = Api::new(api.http_address());
    let ids: Vec<String> = (0..20).map(|_| client.place_valid_order()).collect();
    assert_all_ended_once(&client, &ids);
    wait::until("the rows are there", || {
        let listed = client.get("/v1/orders?limit=200").json();
        let rows = listed["items"].as_array().unwrap().clone();
        let ended = rows.iter().filter(|row| row["status"] != "PROCESSING").count();
        (ended == ids.len()).then_some(())
    });
    for role in [&mut api, &mut worker, &mut projector] {
        let health = Api::new(role.http_address());
        assert_eq!(health.get("/readyz").status, 200);
        assert!(role.terminate().success(), "{:#?}", role.log_lines());
    }
}

#[test]
fn separate_role_processes_work_over_sqlite() {
    assert_separate_roles_work(&SeparateProcesses::start_over_sqlite());
}

#[test]
fn separate_role_processes_work_over_postgres() {
    let database = postgres::create_database_blocking();
    assert_separate_roles_work(&SeparateProcesses::start_over_postgres(database.url()));
}

#[test]
fn order_watch_resumes_after_an_api_restart() {
    let system = SeparateProcesses::start_over_sqlite();
    let mut api = system.serve(&["api"]);
    let address = api.http_address();
    let client = Api::new(address);
    let id = client.place_valid_order();
    let url = client.url();
    let mut watch = Command::new(BINARY)
        .args(["order", "watch", &id, "--json", "--url", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut shown: Vec<_> = lines.by_ref().take(4).map(Result::unwrap).collect();

    api.kill();
    // Accepts two connections of the watch without responding.
    let nobody = TcpListener::bind(address).unwrap();
    nobody.set_nonblocking(true).unwrap();
    for _ in 0..2 {
        drop(wait::until("the watch connects", || nobody.accept().ok()));
    }
    drop(nobody);
    let serve = ["serve", "api", "--listen", &address.to_string()];
    let mut api = system.command(&serve).spawn();
    assert_eq!(api.http_address(), address);
    let _worker = system.serve(&["worker"]);
    shown.extend(lines.map(Result::unwrap));
    assert!(watch.wait().unwrap().success());
    let types =
        shown.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone());
    assert_eq!(json!(types.collect::<Vec<_>>()), json!(client.event_types(&id)));
}

#[test]
fn orders_are_rejected_while_the_event_store_is_down() {
    let mut system = SeparateProcesses::start_over_sqlite();
    let (_roles, api) = system.serve_api(&[]);
    let before = api.place_valid_order();
    api.wait_until_projected(&before);

    let address = system.node.node_address().to_string();
    system.node.kill();
    let refused = api.place(&valid_order());
    assert_eq!(refused.status, 503, "{refused:?}");
    let body = refused.json();
    let (said, id) = (body["error"].as_str().unwrap_or_default(), body["order_id"].as_str());
    assert!(said.contains("may have been recorded"), "{said}");
    assert!(id.is_some_and(|id| said.contains(id)), "the error contains the order id: {body}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(api.get("/livez").status, 200);
    assert_eq!(api.get("/readyz").status, 503);
    assert_reports_event_store_outage(&api);
    // Queries that need only the read model still work.
    assert_eq!(api.get("/v1/orders").status, 200);
    assert_eq!(api.get(&format!("/order/{before}")).status, 200);

    system.node = start_node(system.data.path(), &address);
    let after = wait::until("orders are accepted again", || {
        let answer = api.place(&valid_order());
        (answer.status == 202).then(|| answer.json()["order_id"].as_str().unwrap().to_owned())
    });
    assert_all_ended_once(&api, &[before, after]);
}

/// Asserts that a call responds within a second, as promised during a detected outage.
fn respond_within_a_second(call: impl FnOnce() -> Answer) -> Answer {
    let asked = Instant::now();
    let answer = call();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}: {answer:?}", asked.elapsed());
    answer
}

/// Asserts that responses come within a second and report the event store as unavailable.
fn assert_reports_event_store_outage(api: &Api) {
    let ready = api.get("/readyz?verbose").json();
    let reason = ready["reasons"]["event_store"].as_str().unwrap();
    assert_eq!(reason, "event store accepts no orders: it does not answer");
    let refused = respond_within_a_second(|| api.place(&valid_order()));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    let body = refused.json();
    assert!(body["error"].as_str().unwrap().contains("nothing was recorded"), "{body}");
    assert_eq!(body.get("order_id"), None, "there is no order to look up");

    let stats = respond_within_a_second(|| api.get("/v1/stats?minutes=5"));
    assert_eq!(stats.status, 200, "{stats:?}");
    let stats = stats.json();
    assert_eq!(
        stats["orders"]["FULFILLED"].as_u64().map(|count| count <= 1),
        Some(true),
        "{stats}"
    );
    assert!(stats["per_minute"].is_array(), "{stats}");
    for unknown in
        [&stats["queue"]["waiting"], &stats["fulfillment"]["paused"], &stats["projection"]["stuck"]]
    {
        assert_eq!(unknown, &Value::Null, "{stats}");
    }
    assert!(stats["unavailable"]["event_store"].is_string(), "{stats}");

    let workers = respond_within_a_second(|| api.get("/v1/ops/worker"));
    assert_eq!(workers.status, 200, "{workers:?}");
    let workers = workers.json();
    assert_eq!((&workers["paused"], &workers["workers"]), (&Value::Null, &Value::Null));
    assert_eq!(workers["orders_processing"], 0, "{workers}");
    assert!(workers["unavailable"]["event_store"].is_string(), "{workers}");
}

#[test]
fn orders_of_a_killed_worker_end_once() {
    let system = SeparateProcesses::start_over_sqlite();
    let (_roles, api) = system.serve_api(&["api", "projector"]);
    let mut worker =
        system.command(&["serve", "worker"]).env("DOFS__FULFILLMENT__LATENCY_MS", "50").spawn();
    let ids: Vec<String> = (0..60).map(|_| api.place_valid_order()).collect();
    api.wait_until_ended(&ids[0]);
    worker.kill();
    let _worker = system.serve(&["worker"]);
    assert_all_ended_once(&api, &ids);
}

#[test]
fn orders_are_accepted_while_the_read_model_is_down() {
    let mut server = postgres::start_private_server();
    let system = SeparateProcesses::start_over_postgres(&server.url());
    let (mut roles, api) = system.serve_api(&[]);
    let before = api.place_valid_order();
    api.wait_until_ended(&before);

    server.stop_immediately();
    let during = api.place_valid_order();
    assert_eq!(api.wait_until_ended(&during)["source"], "stream");
    assert_eq!(api.get(&format!("/order/{before}")).json()["source"], "stream");
    let refused = api.get("/v1/orders");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    // Orders can be accepted, so the process is ready but degraded.
    let ready = wait::until("the process is degraded", || {
        let ready = api.get("/readyz");
        (ready.json()["status"] == "degraded").then_some(ready)
    });
    assert_eq!((ready.status, ready.header("degraded")), (200, Some("read_model, projector")));
    assert_eq!(ready.json()["reasons"]["read_model"], "read model does not answer");
    assert_eq!(api.get("/readyz?require=read_model").status, 503);
    assert_eq!(api.get("/readyz?require=event_store").status, 200);
    assert_eq!(api.get("/readyz?require=nothing").status, 400);
    let stats = respond_within_a_second(|| api.get("/v1/stats")).json();
    assert_eq!((&stats["orders"], &stats["queue"]["in_flight"]), (&Value::Null, &json!(0)));
    assert!(stats["unavailable"]["read_model"].is_string(), "{stats}");
    for _ in 0..5 {
        api.get("/v1/orders");
        api.get(&format!("/order/{before}"));
    }

    server.start();
    for id in [&before, &during] {
        wait::until("the row is there", || {
            let shown = api.get(&format!("/order/{id}")).json();
            (shown["source"] == "table" && shown["status"] != "PROCESSING").then_some(())
        });
    }
    let logged = wait::until("the end of the outage is logged", || {
        let mut logged = roles.log_lines();
        logged.retain(|line| {
            line["message"].as_str().is_some_and(|message| message.starts_with("Read model"))
        });
        (logged.last()?["message"] == "Read model reachable again").then_some(logged)
    });
    assert_eq!(logged[0]["message"], "Read model unreachable", "{logged:#?}");
    // The cause may change while the server stops; each cause is logged once.
    assert!(logged.len() <= 5, "{logged:#?}");
    assert!(logged.iter().all(|line| line["address"] == server.url()), "{logged:#?}");
    assert!(logged[0]["cause"].is_string() && logged[0]["hint"].is_string(), "{logged:#?}");
    assert!(roles.terminate().success(), "{:#?}", roles.log_lines());
}
