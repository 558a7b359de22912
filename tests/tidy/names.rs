//! The names of the source: one word for each concept, the word that the field uses, and no type name twice.

use std::collections::BTreeMap;

/// Names that this source once had for known things, and the words that it uses now.
const RETIRED: &[(&str, &str)] = &[
    ("Steps", "ChunkedVec"),
    ("Striped", "StripedCounter"),
    ("Stamp", "EntryHeader"),
    ("Bar", "LivenessBound"),
    ("clears", "is_surely_live"),
    ("Due", "PackedDeadline"),
    ("kept_until", "reclaim_at"),
    ("Life", "Lifetime"),
    ("Plan", "RefreshPlan"),
    ("born", "epoch"),
    ("floor", "min_epoch"),
    ("tag_moves", "tag_epoch"),
    ("await_rise", "wait_for_bump"),
    ("Gone", "RemovedEntry"),
    ("Batch", "RemovedBatch"),
    ("contain_drop", "drop_catching"),
    ("beside", "side_tables"),
    ("Beside", "SideTables"),
    ("Pockets", "PolicyView"),
    ("Alike", "UnitWeightView"),
    ("Extras", "EntryMeta"),
    ("Ordinary", "FastPath"),
    ("turnover", "insert_fast"),
    ("turn_over", "insert_evicting"),
    ("overwrite_plain", "overwrite_fast"),
    ("tend", "run_maintenance"),
    ("SLICE", "MAINTENANCE_BATCH"),
    ("doomed", "cleared"),
    ("surplus", "over_capacity"),
    ("rubble", "deferred_free"),
    ("shed", "free_some"),
    ("pack", "compact"),
    ("vacate", "free_slot"),
    ("forget_one", "unlink_from_tables"),
    ("judge", "check_liveness"),
    ("Past", "Dead"),
    ("Reading", "Hit"),
    ("Incoming", "NewEntry"),
    ("is_tidy", "fast_path_ok"),
    ("is_blank", "none_needed or holds_nothing"),
    ("is_loose", "is_fragmented"),
    ("is_quiet", "no_timer_due"),
    ("Evictor", "AnyPolicy"),
    ("Glance", "EntryView"),
    ("Outlook", "PrefetchHint"),
    ("Totals", "Usage"),
    ("Quota", "Bound"),
    ("settle", "demote_fresh, run_deferred or init_versions"),
    ("proven", "main_usage"),
    ("HAND", "MAX_SECOND_CHANCES"),
    ("haste", "return_rate"),
    ("is_left", "has_overflow"),
    ("ASIDE", "PENDING"),
    ("aside", "pending or deferred_push"),
    ("Visit", "LockedStripe"),
    ("visit", "with_stripe_mut"),
    ("hand_over", "notify_and_return"),
    ("Parcel", "WriteRequest"),
    ("put_newcomer", "put_fast"),
    ("Begin", "JoinOutcome"),
    ("Luggage", "JoinInputs"),
    ("Wish", "Purpose"),
    ("Ask", "Accepts"),
    ("Lead", "LeaderGuard"),
    ("Follow", "Follower"),
    ("Landed", "PublishOutcome"),
    ("Instead", "Fallback"),
    ("walks", "active_scans"),
    ("Waits", "WaitEdge"),
    ("Kept", "FlightRef"),
    ("Remembered", "NegativeResult"),
    ("Resting", "CoolingDown or BreakerOpen"),
    ("Turn", "LoadStep"),
    ("Errand", "LoadReason or RequestKind"),
    ("take_in", "publish_loaded"),
    ("refresh_on", "executor"),
    ("refresh_in_task", "spawner"),
    ("absent_time_to_live", "negative_time_to_live"),
    ("hear", "invalidate"),
    ("Seal", "ContentId"),
    ("seal", "content_id"),
    ("Pledge", "AddReply"),
    ("seize", "set_placeholder"),
    ("Refusal", "ServerErrorKind"),
    ("Held", "L1Value or LockGuard"),
    ("own_time_to_live", "l1_time_to_live"),
    ("keep_while_down", "serve_while_down"),
    ("Locks", "LockManager"),
    ("Wanted", "LoaderDemand"),
    ("patience", "max_wait"),
    ("Plain", "RawBytes"),
    ("Debts", "RetryQueue"),
    ("owe", "enqueue_retry"),
    ("pay", "send"),
    ("paid", "ack"),
    ("PORTION", "RETRY_BATCH"),
    ("Unanswered", "InFlight"),
    ("Layout", "Commands"),
    ("arming", "handshake"),
    ("beat", "ping"),
    ("lose", "disconnect"),
    ("RedisWatch", "StatsHandle"),
];

/// Names that may be given to several types: they mean the same in each place.
const SHARED: &[&str] = &["BoxError", "Item", "Target", "Output"];

/// Retired names in the code of a file, comments and strings aside.
pub(crate) fn retired(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = without_strings(line.split("//").next().unwrap_or_default());
        for word in code.split(|c: char| !c.is_alphanumeric() && c != '_') {
            if let Some((name, now)) = RETIRED.iter().find(|(name, _)| *name == word) {
                let line = number + 1;
                complaints.push(format!("{path}:{line}: `{name}` is called {now} here"));
            }
        }
    }
    complaints
}

/// Types that have the name of another one, tests aside.
pub(crate) fn doubles(files: &[(String, String)]) -> Vec<String> {
    const KEYWORDS: [&str; 4] = ["struct", "enum", "trait", "type"];
    let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (path, text) in files {
        let text = text.split("mod tests {").next().unwrap_or_default();
        for line in text.lines() {
            let mut words = line
                .split_whitespace()
                .skip_while(|word| word.starts_with("pub") || word.ends_with(')'));
            if !words.next().is_some_and(|word| KEYWORDS.contains(&word)) {
                continue;
            }
            let name: String = words
                .next()
                .unwrap_or_default()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let paths = places.entry(name).or_default();
            // A file may have one for each of two configurations.
            if !paths.contains(&path.as_str()) {
                paths.push(path);
            }
        }
    }
    places
        .into_iter()
        .filter(|(name, paths)| paths.len() > 1 && !SHARED.contains(&name.as_str()))
        .map(|(name, paths)| format!("`{name}` is defined in {}", paths.join(", ")))
        .collect()
}

fn without_strings(code: &str) -> String {
    code.split('"').step_by(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn planted_names_are_found() {
    assert_eq!(
        retired("x.rs", "struct Beside;\nlet n = self.doomed;\n").len(),
        2
    );
    assert!(
        retired(
            "x.rs",
            "// Beside\nlet x = \"doomed\"; // visit\nis_undoomed();\n"
        )
        .is_empty()
    );
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let twice = [
        file("a.rs", "pub(crate) struct Rules<K> {\n"),
        file("b.rs", "enum Rules {\n"),
    ];
    assert_eq!(doubles(&twice).len(), 1);
    let once = [
        file("a.rs", "struct Rules;\nstruct Rules;\n"),
        file(
            "b.rs",
            "// struct Rules\nmod tests {\n    struct Rules;\n}\n",
        ),
    ];
    assert!(doubles(&once).is_empty());
}
