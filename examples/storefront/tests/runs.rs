//! Runs the program as a user would, on a small shop: that a good run passes, that the checks catch
//! a planted bug, and that mistakes are answered with a sentence that helps.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Output},
};

use serde_json::Value;

const SMALL: [&str; 9] = [
    "--products=1500",
    "--requests=3000",
    "--uncached-requests=60",
    "--connections=2",
    "--price-changes=60",
    "--stampede=40",
    "--quiet",
    "--json",
    "--port=0",
];

fn storefront(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_storefront"))
        .args(args)
        // What these tests are about needs no server.
        .env_remove("REDIS_URL")
        .output()
        .expect("the program starts")
}

fn small(more: &[&str]) -> Output {
    let args: Vec<&str> = more.iter().chain(&SMALL).copied().collect();
    storefront(&args)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "standard output is not one JSON object: {error}; {}",
            stderr(output)
        )
    })
}

#[test]
fn a_good_run_passes_and_prints_one_json_object() {
    let output = small(&[]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    assert_eq!(report["stale_prices"], 0);
    assert_eq!(report["pages_differing"], 0);
    assert_eq!(report["stampede_loader_calls"], 1);
    assert_eq!(report["stampede_requests"], 40);
    assert_eq!(report["price_changes"], 60);
    assert_eq!(report["expiry_waits"], 0);
    assert_eq!(report["outage_errors"], 0);
    assert!(report["outage_stale"].as_u64() > Some(0), "{report}");
    assert_eq!(report["cached_requests"], 3000);
    assert!(
        report["stale_checks"].as_u64() >= Some(180),
        "each change is followed by three reads: {report}"
    );
    for figure in [
        "uncached_p50_ms",
        "cached_p50_ms",
        "uncached_queries",
        "cached_queries",
        "hit_ratio",
    ] {
        assert!(report[figure].as_f64() > Some(0.0), "{figure} in {report}");
    }
    assert!(report["stampede_joined"].is_u64());
}

#[test]
fn changes_that_invalidate_nothing_are_found_stale() {
    let output = small(&["--break-invalidation"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(report["stale_prices"].as_u64() > Some(0), "{report}");
    assert!(report["pages_differing"].as_u64() > Some(0), "{report}");
    assert!(
        stderr(&output).contains("checked prices were stale; first: /"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_kept_database_is_used_again_and_another_file_is_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("shop.sqlite");
    let database = format!("--database={}", path.display());
    let built = json(&small(&[&database]));
    assert!(built["seconds"]["database"].as_f64() > Some(0.0), "{built}");
    let used_again = small(&[&database]);
    assert_eq!(used_again.status.code(), Some(0), "{}", stderr(&used_again));
    assert_eq!(json(&used_again)["seconds"]["database"], 0.0);

    let output = storefront(&[&database, "--products=2000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("holds a shop of 1500 products, --products asks for 2000"),
        "{}",
        stderr(&output)
    );

    fs::write(&path, "my diary").expect("the file can be written");
    let output = storefront(&[&database]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("is not a shop of this version"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some("my diary"));
}

#[test]
fn mistakes_are_answered_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("its address").port();
    let output = storefront(&["--port", &port.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&format!("port {port} is in use")),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("--port"), "{}", stderr(&output));

    let output = storefront(&["--price-changes", "many"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("invalid value 'many' for '--price-changes <N>'"),
        "{}",
        stderr(&output)
    );

    let directory = tempfile::tempdir().expect("a temporary directory");
    let nowhere = directory.path().join("missing").join("shop.sqlite");
    let output = storefront(&[&format!("--database={}", nowhere.display())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot keep the database at"),
        "{}",
        stderr(&output)
    );
    assert!(output.stdout.is_empty());
}
