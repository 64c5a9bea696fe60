//! Findings that go to collectors, commands and the journal.
//!
//! The collector (`collector.py`) decodes with OpenTelemetry's own Python package: `TCPWATCH_PYTHON` names
//! a Python that has it, or the one that `.ci/setup` makes is taken.

mod collector;
mod exec;
mod journal;

use std::net::TcpStream;

use crate::{
    Test,
    peers::{Kind, listen, pair},
};

pub(crate) fn tests() -> Vec<Test> {
    let otlp = |name, body| Test::new(name, body).only_if(collector::is_possible);
    vec![
        otlp("otlp_a_leak_is_a_log_record", collector::log_record),
        otlp("otlp_metrics_are_what_is_served", collector::metrics),
        otlp("otlp_a_busy_collector_gets_it_again_once", collector::again),
        otlp("otlp_a_collector_is_not_asked_before_its_time", collector::retry_after),
        otlp("otlp_what_a_collector_rejects_is_told", collector::rejected),
        otlp("otlp_a_refusal_is_final", collector::refused),
        otlp("otlp_a_silent_collector_disturbs_nothing", collector::silent),
        otlp("otlp_headers_and_compression_come_from_the_environment", collector::environment),
        otlp("otlp_a_connection_that_the_collector_closes_is_closed", collector::closes),
        otlp("otlp_over_tls_to_whom_the_certificate_names", collector::tls).needs("openssl"),
        Test::new("otlp_a_collector_that_is_not_there_is_told", collector::absent),
        Test::new("exec_has_the_finding_and_nothing_else", exec::finding),
        Test::new("exec_has_no_privilege_and_no_descriptor", exec::privileges),
        Test::new("exec_runs_once_for_a_culprit", exec::once),
        Test::new("exec_runs_a_few_at_a_time_and_not_too_often", exec::rate),
        Test::new("exec_is_killed_with_all_it_started", exec::killed),
        Test::new("exec_ends_with_the_run", exec::ends),
        Test::new("exec_leaves_alone_what_a_command_left_behind", exec::leaves),
        Test::new("exec_says_that_nobody_runs_commands_any_more", exec::alone),
        Test::new("journal_entries_have_fields", journal::fields),
        Test::new("journal_is_found_by_its_stream", journal::stream),
    ]
}

const LINGER: [&str; 3] = ["-q", "--linger", "300ms"];

/// Connections whose clients have closed, of servers that do not.
fn leak(count: usize) -> Vec<TcpStream> {
    let listener = listen(Kind::V4);
    (0..count).map(|_| pair(Kind::V4, &listener).1).collect()
}

fn us() -> u32 {
    std::process::id()
}
