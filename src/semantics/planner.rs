//! Plans SQL's operators with Spark's meaning, so that a frame's schema has Spark's types at once.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::operators::{self, Op, applies, is_text, text_becomes};
use super::{decimal, doubles};

/// Spark's operators in SQL.
#[derive(Debug)]
pub(super) struct SparkPlanner;

impl ExprPlanner for SparkPlanner {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema))
        else {
            return Ok(PlannerResult::Original(expr));
        };
        if !applies(&left, &right) {
            return Ok(PlannerResult::Original(expr));
        }
        if let Some(op) = logical(&expr.op).and_then(Op::of) {
            let l = literal_like_spark(expr.left, &right);
            let r = literal_like_spark(expr.right, &left);
            return Ok(PlannerResult::Planned(operators::call(op, l, r)));
        }
        if compares(&expr.op) {
            let RawBinaryExpr {
                op,
                left: l,
                right: r,
            } = expr;
            return Ok(PlannerResult::Original(RawBinaryExpr {
                op,
                left: read_beside(l, &left, &right),
                right: read_beside(r, &right, &left),
            }));
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// Beside a number a text is read as a number, and a decimal beside a double as a double.
fn read_beside(expr: Expr, own: &DataType, other: &DataType) -> Expr {
    if own.is_decimal() && other.is_floating() {
        doubles::double(expr)
    } else if is_text(own) && other.is_numeric() {
        super::casts::to_number(expr, text_becomes(other))
    } else {
        expr
    }
}

/// An integer literal is an `int` where it fits one; beside a decimal it has just its own digits.
fn literal_like_spark(expr: Expr, other: &DataType) -> Expr {
    let Expr::Literal(ScalarValue::Int64(Some(value)), metadata) = &expr else {
        return expr;
    };
    let (value, metadata) = (*value, metadata.clone());
    if matches!(other, DataType::Decimal128(..)) {
        return Expr::Literal(decimal::literal(value), metadata);
    }
    match i32::try_from(value) {
        Ok(small) => Expr::Literal(ScalarValue::Int32(Some(small)), metadata),
        Err(_) => expr,
    }
}

fn logical(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Plus => Operator::Plus,
        BinaryOperator::Minus => Operator::Minus,
        BinaryOperator::Multiply => Operator::Multiply,
        BinaryOperator::Divide => Operator::Divide,
        BinaryOperator::Modulo => Operator::Modulo,
        _ => return None,
    })
}

fn compares(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}
