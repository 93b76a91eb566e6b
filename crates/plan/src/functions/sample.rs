//! TABLESAMPLE over a stream is refused; DataFusion would parse it and leave it out in silence.

use datafusion::error::Result;
use datafusion::logical_expr::planner::{
    RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::sql::sqlparser::ast::TableFactor;
use highwater_core::Error;

use crate::table::source_streams;

/// Refuses a sample of what may be a stream: a streaming table, a subquery, a name from WITH.
#[derive(Debug, Default)]
pub(super) struct RefuseSamples;

impl RelationPlanner for RefuseSamples {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let sampled = match &relation {
            TableFactor::Table {
                name,
                sample: Some(_),
                ..
            } => {
                let table = context.object_name_to_table_reference(name.clone())?;
                context
                    .context_provider()
                    .get_table_source(table)
                    .map_or(true, |source| source_streams(source.as_ref()))
            }
            TableFactor::Derived {
                sample: Some(_), ..
            } => true,
            _ => false,
        };
        if sampled {
            return Err(Error::unsupported(
                "Sampling is not supported on streaming DataFrames/Datasets",
            )
            .with_operator("sample")
            .with_hint("filter with a condition on the rows, such as a hash of a key")
            .into());
        }
        Ok(RelationPlanning::Original(Box::new(relation)))
    }
}
