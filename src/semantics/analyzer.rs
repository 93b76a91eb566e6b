//! Gives Spark's meaning to operators, casts and aggregates that were not planned from SQL.
//!
//! It runs before DataFusion's type coercion, so that it sees the types the user wrote. What it
//! rewrites it recognises again: analyzing a plan twice changes nothing.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::operators::{self, Op, applies};
use super::{aggregates, casts, doubles, functions, unary};

/// The rule.
#[derive(Debug)]
pub(super) struct SparkRule;

impl SparkRule {
    /// How the rule is called.
    pub(super) const NAME: &'static str = "spark_semantics";
}

impl AnalyzerRule for SparkRule {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite_node)
            .map(|plan| plan.data)
    }
}

fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if matches!(plan, LogicalPlan::TableScan(_)) {
        return Ok(Transformed::no(plan));
    }
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        expr.transform_up(|expr| {
            doubles::meet(expr, &schema).transform_data(|expr| rewrite(expr, &schema))
        })
        .map(|new| new.update_data(|expr| name.restore(expr)))
    })?;
    if plan.transformed {
        plan.map_data(LogicalPlan::recompute_schema)
    } else {
        Ok(plan)
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(binary) => Ok(rewrite_binary(binary, schema)),
        Expr::Negative(inner) => match inner.get_type(schema) {
            Ok(t) if t.is_integer() || t.is_decimal() => {
                Ok(Transformed::yes(unary::negate(*inner)))
            }
            _ => Ok(Transformed::no(Expr::Negative(inner))),
        },
        Expr::Cast(cast) => match cast.expr.get_type(schema) {
            Ok(from) => {
                let before = Expr::Cast(cast.clone());
                let after = casts::rewrite(cast, &from);
                let changed = before != after;
                Ok(Transformed::new_transformed(after, changed))
            }
            Err(_) => Ok(Transformed::no(Expr::Cast(cast))),
        },
        Expr::AggregateFunction(call) => Ok(match aggregates::instead_of(&call.func) {
            Some(func) => Transformed::yes(Expr::AggregateFunction(AggregateFunction {
                func,
                params: call.params,
            })),
            None => Transformed::no(Expr::AggregateFunction(call)),
        }),
        Expr::ScalarFunction(mut call) => Ok(match functions::instead_of(&call.func) {
            Some(func) => {
                call.func = func;
                Transformed::yes(Expr::ScalarFunction(call))
            }
            None => Transformed::no(Expr::ScalarFunction(call)),
        }),
        other => Ok(Transformed::no(other)),
    }
}

fn rewrite_binary(binary: BinaryExpr, schema: &DFSchema) -> Transformed<Expr> {
    let (Ok(left), Ok(right)) = (binary.left.get_type(schema), binary.right.get_type(schema))
    else {
        return Transformed::no(Expr::BinaryExpr(binary));
    };
    if let Some(op) = Op::of(binary.op).filter(|_| applies(&left, &right)) {
        return Transformed::yes(operators::call(op, *binary.left, *binary.right));
    }
    let floats = left.is_floating() || right.is_floating();
    if !floats || !compares(binary.op) {
        return Transformed::no(Expr::BinaryExpr(binary));
    }
    let before = (binary.left.clone(), binary.right.clone());
    let l = comparable(*binary.left, &left);
    let r = comparable(*binary.right, &right);
    let changed = *before.0 != l || *before.1 != r;
    let after = Expr::BinaryExpr(BinaryExpr::new(Box::new(l), binary.op, Box::new(r)));
    Transformed::new_transformed(after, changed)
}

fn comparable(expr: Expr, t: &DataType) -> Expr {
    let done = unary::is_comparable(&expr) || matches!(&expr, Expr::Literal(..));
    if t.is_floating() && !done {
        unary::comparable(expr)
    } else {
        expr
    }
}

/// True for the operators that compare.
pub(super) fn compares(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}
