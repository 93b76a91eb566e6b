//! Which queries fit a checkpoint, and which do not.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::*;

fn operator(
    name: &str,
    keys: &[(&str, DataType)],
    values: &[(&str, DataType)],
) -> OperatorIdentity {
    let schema = |columns: &[(&str, DataType)]| {
        let field = |(name, t): &(&str, DataType)| Field::new(*name, t.clone(), true);
        Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
    };
    OperatorIdentity {
        name: name.into(),
        keys: schema(keys),
        kind: "stateStoreSave".into(),
        values: schema(values),
        pane: None,
        sources: Vec::new(),
        takes_new_values: true,
    }
}

fn query() -> Vec<OperatorIdentity> {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let list = DataType::new_list(DataType::Decimal128(10, 2), true);
    let pair = DataType::Struct(vec![Field::new("a b", DataType::Utf8View, false)].into());
    vec![
        operator(
            "aggregate",
            &[("pump", DataType::Utf8View), ("at", utc)],
            &[("n", DataType::Int64)],
        ),
        operator("aggregate_2", &[], &[("all", list), ("pair", pair)]),
    ]
}

#[test]
fn the_same_query_fits() {
    let bytes = OperatorsEntry::new(&query()).encode().expect("encoded");
    let stored = OperatorsEntry::decode(&bytes).expect("decoded");
    assert_eq!(stored.check(&query(), false).expect("fits"), None);
    let mut other = query();
    other.reverse();
    other[1].keys = Arc::clone(
        &operator(
            "",
            &[
                ("renamed", DataType::Utf8View),
                ("t", other[1].keys.field(1).data_type().clone()),
            ],
            &[],
        )
        .keys,
    );
    stored
        .check(&other, false)
        .expect("order of operators and names of columns do not count");
    OperatorsEntry::new(&[])
        .check(&[], false)
        .expect("no operator");
}

#[test]
fn another_query_is_told_what_differs() {
    let int = || ("n", DataType::Int64);
    let key = || ("pump", DataType::Utf8View);
    let stored = OperatorsEntry::new(&[operator("agg", &[key()], &[int()])]);
    for (query, column, message) in [
        (
            vec![operator("agg", &[("id", DataType::Int32)], &[int()])],
            Some("id"),
            "key column 1, `id`, is Utf8View in the checkpoint and Int32 in the query",
        ),
        (
            vec![operator("agg", &[key()], &[("avg", DataType::Float64)])],
            Some("avg"),
            "value column 1, `avg`, is Int64 in the checkpoint and Float64 in the query",
        ),
        (
            vec![operator(
                "agg",
                &[key()],
                &[int(), ("max", DataType::Int32)],
            )],
            Some("max"),
            "value column 2, `max`, is missing in the checkpoint and Int32 in the query",
        ),
        (
            vec![operator("agg", &[], &[int()])],
            Some("pump"),
            "key column 1, `pump`, is Utf8View in the checkpoint and missing in the query",
        ),
        (
            vec![],
            None,
            "stateful operator `agg` is in the checkpoint, but not in the query",
        ),
        (
            vec![
                operator("agg", &[key()], &[int()]),
                operator("dedup", &[], &[]),
            ],
            None,
            "stateful operator `dedup` is in the query, but not in the checkpoint",
        ),
    ] {
        let error = stored.check(&query, false).expect_err(message);
        assert!(error.message().ends_with(message), "{error}");
        assert_eq!(error.column(), column);
        assert!(error.operator().is_some() && error.hint().is_some());
    }
}

#[test]
fn nulls_that_are_stored_need_a_column_with_nulls() {
    let mut strict = operator("agg", &[], &[]);
    strict.keys = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)]));
    let loose = operator("agg", &[("k", DataType::Int64)], &[]);
    OperatorsEntry::new(std::slice::from_ref(&strict))
        .check(std::slice::from_ref(&loose), false)
        .expect("fits");
    let error = OperatorsEntry::new(&[loose])
        .check(&[strict], false)
        .expect_err("no");
    let message = "is Int64 in the checkpoint and Int64 NOT NULL in the query";
    assert!(error.message().ends_with(message), "{error}");
}

fn aggregate(values: &[(&str, DataType)]) -> OperatorIdentity {
    operator("agg", &[("k", DataType::Utf8View)], values)
}

/// All of a column's name and type must still be there; what is new may stand anywhere.
#[test]
fn functions_are_added_where_the_query_asks_for_it() {
    use DataType::{Float64, Int64};
    let stored = OperatorsEntry::new(&[aggregate(&[("count", Int64), ("sum", Float64)])]);
    let more = [aggregate(&[
        ("max", Int64),
        ("sum", Float64),
        ("count", Int64),
    ])];
    let next = stored.check(&more, true).expect("evolves").expect("more");
    assert_eq!(next, OperatorsEntry::new(&more));
    assert_eq!(next.check(&more, false).expect("fits"), None);
    let error = stored.check(&more, false).expect_err("not asked for");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("allowStateEvolution")),
        "{error}"
    );

    for (values, column) in [
        (&[("count", Int64), ("max", Int64), ("n", Int64)][..], "sum"),
        (&[("count", Int64), ("sum", Int64), ("max", Int64)], "sum"),
        (&[("sum", Float64)], "count"),
        (
            &[("count", Int64), ("sum", Float64), ("sum", Float64)],
            "sum",
        ),
    ] {
        for evolve in [true, false] {
            let error = stored
                .check(&[aggregate(values)], evolve)
                .expect_err("refused");
            assert_eq!(error.operator(), Some("agg"));
            let hinted = error
                .hint()
                .is_some_and(|hint| hint.contains("allowStateEvolution"));
            assert!(!hinted, "{error}");
            assert!(!evolve || error.column() == Some(column), "{error}");
        }
    }
    let fixed = OperatorIdentity {
        takes_new_values: false,
        ..more[0].clone()
    };
    stored
        .check(&[fixed], true)
        .expect_err("it cannot complete old records");
}

#[test]
fn another_kind_under_the_same_name_is_another_operator() {
    let stored = OperatorsEntry::new(&[aggregate(&[])]);
    let other = OperatorIdentity {
        kind: "sessionWindowStateStoreSaveExec".into(),
        ..aggregate(&[])
    };
    let error = stored.check(&[other], true).expect_err("refused");
    assert!(error.message().contains("`stateStoreSave`"), "{error}");
    let unknown = OperatorIdentity {
        kind: String::new(),
        ..aggregate(&[])
    };
    let older = OperatorsEntry::new(&[unknown]);
    let next = older.check(&[aggregate(&[])], false).expect("fits");
    assert_eq!(next, Some(stored), "the kind is learnt");
}

#[test]
fn a_query_without_state_left_none() {
    let error = OperatorsEntry::new(&[])
        .check(&[aggregate(&[])], true)
        .expect_err("refused");
    let condition = error.condition().expect("a condition");
    assert!(condition.ends_with("MISSING_STATE_DIRECTORY"), "{error}");
    assert_eq!(error.operator(), Some("agg"));
}

/// The starts of windows of ten seconds are not those of twenty.
#[test]
fn records_must_be_over_as_they_were() {
    let paned = |pane| OperatorIdentity {
        pane,
        ..aggregate(&[])
    };
    let pane = |add_us| Some(Pane { column: 0, add_us });
    let stored = OperatorsEntry::new(&[paned(pane(10))]);
    assert_eq!(stored.check(&[paned(pane(10))], false).expect("fits"), None);
    let error = stored.check(&[paned(pane(20))], true).expect_err("refused");
    assert!(
        error.message().contains("10 µs") && error.message().contains("20 µs"),
        "{error}"
    );
    assert_eq!(error.column(), Some("k"));
    // Without a watermark the records stay as they are, and what is known of them is kept.
    assert_eq!(stored.check(&[paned(None)], false).expect("fits"), None);
    let bare = OperatorsEntry::new(&[paned(None)]);
    let next = bare.check(&[paned(pane(10))], false).expect("fits");
    assert_eq!(next, Some(stored));
}

#[test]
fn what_is_read_is_what_was_written() {
    let mut query = query();
    query[0].pane = Some(Pane {
        column: 1,
        add_us: 5,
    });
    let bytes = OperatorsEntry::new(&query).encode().expect("encoded");
    let read = OperatorsEntry::decode(&bytes).and_then(|entry| entry.identities());
    let stored = query.into_iter().map(|operator| OperatorIdentity {
        takes_new_values: false,
        ..operator
    });
    assert_eq!(read.expect("identities"), stored.collect::<Vec<_>>());
}

/// Two aggregates that have changed places: each has the other's source.
#[test]
fn an_operator_goes_on_with_its_own_source() {
    let reading = |name: &str, source: &str| OperatorIdentity {
        sources: vec![source.to_owned()],
        ..operator(name, &[("k", DataType::Utf8View)], &[])
    };
    let stored = OperatorsEntry::new(&[reading("agg", "orders"), reading("agg_2", "returns")]);
    let swapped = [reading("agg", "returns"), reading("agg_2", "orders")];
    let error = stored.check(&swapped, true).expect_err("refused");
    assert!(
        error
            .message()
            .contains("`orders` in the checkpoint and `returns` in the query"),
        "{error}"
    );
    // A source that is new is told of the whole query, when offsets are compared.
    let renamed = [reading("agg", "orders"), reading("agg_2", "sales")];
    stored.check(&renamed, false).expect("not told here");
}
