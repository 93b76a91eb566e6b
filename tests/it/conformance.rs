//! The conformance cases in `tests/conformance`, as `cargo test` runs them.

use std::path::{Path, PathBuf};

use highwater_testkit::conformance::{
    Case, Front, Lists, Selection, Tally, load, report, run_all_through, sql_front,
};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn lists() -> Lists {
    Lists::read(
        &project("tests/conformance/not-yet.txt"),
        &project("docs/beyond-spark.md"),
    )
    .expect("both lists can be read")
}

fn all_cases() -> Selection {
    Selection {
        paths: vec![project("tests/conformance")],
        kinds: Vec::new(),
    }
}

#[test]
fn the_cases_agree_with_spark() {
    let cases = load(&all_cases()).unwrap();
    all_agree(Front::Frames, &cases);
}

/// Where watermarks and deduplication are called on frames, they are written in SQL here; the other cases are the same.
#[test]
fn the_cases_agree_with_spark_through_sql() {
    let mut cases = load(&all_cases()).unwrap();
    cases.retain(sql_front::differs);
    let tally = all_agree(Front::Sql, &cases);
    println!("through SQL: {tally}");
    assert!(tally.passed > 100, "{tally}");
}

fn all_agree(front: Front, cases: &[Case]) -> Tally {
    let mut tally = Tally::default();
    let mut failed = Vec::new();
    run_all_through(front, cases, &lists(), |case, outcome| {
        let before = tally.failed;
        tally.count(outcome);
        if tally.failed > before {
            failed.push(report::line(&case.name, outcome));
        }
    });
    assert!(failed.is_empty(), "{}\n{tally}", failed.join("\n"));
    assert!(tally.passed > 0, "{tally}");
    tally
}

#[test]
fn the_lists_name_cases_that_exist_and_issues_that_are_known() {
    let cases = load(&all_cases()).unwrap();
    let lists = lists();
    for line in &lists.not_yet {
        assert!(
            cases.iter().any(|case| line.covers(&case.name)),
            "not-yet.txt: there is no case `{}`",
            line.pattern
        );
        assert!(
            ["A", "B", "C", "D"].contains(&line.issue.as_str()),
            "not-yet.txt: `{}` waits for an unknown issue `{}`",
            line.pattern,
            line.issue
        );
    }
    for name in &lists.beyond {
        assert!(
            cases.iter().any(|case| case.name == *name),
            "beyond-spark.md: there is no case `{name}`"
        );
    }
}
