//! `explain`: DataFusion's, with a row `incremental_plan` where the frame streams.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use highwater_plan::{PlanRequest, plan_query};

use super::StreamFrame;
use crate::static_tables::static_refresh;
use crate::{Error, OutputMode, Result};

impl StreamFrame {
    /// The plans as a batch frame of `plan_type` and `plan`; `verbose` adds the analyzed plan with its types.
    ///
    /// A streaming frame has a row `incremental_plan`: what one micro-batch runs, in the first output mode of
    /// update, append, complete that the query can be started in.
    ///
    /// # Errors
    /// `Unsupported` for `analyze` of a streaming frame: its figures are in the query's progress.
    pub fn explain(self, verbose: bool, analyze: bool) -> Result<Self> {
        if !self.is_streaming() {
            return self.transform(|frame| frame.explain(verbose, analyze));
        }
        if analyze {
            return Err(Error::unsupported("EXPLAIN ANALYZE of a streaming query")
                .with_operator("explain")
                .with_hint("start the query; its progress tells the figures"));
        }
        let mode = self.mode();
        let (session, frame) = self.into_inner();
        let (state, plan) = frame.into_parts();
        let table = Arc::new(ExplainTable {
            plan,
            state,
            verbose,
            mode,
            schema: schema(),
        });
        let context = session.context();
        let frame: DataFrame = context.read_table(table)?;
        Ok(Self::new(session, frame))
    }
}

fn schema() -> SchemaRef {
    let column = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![column("plan_type"), column("plan")]))
}

/// Plans when it is asked, as planning may wait for catalogs.
#[derive(Debug)]
struct ExplainTable {
    plan: LogicalPlan,
    state: SessionState,
    verbose: bool,
    /// The one output mode that the query asks for.
    mode: Option<OutputMode>,
    schema: SchemaRef,
}

impl ExplainTable {
    async fn rows(&self) -> Result<RecordBatch> {
        let mut rows = vec![("logical_plan", self.plan.display_indent().to_string())];
        if self.verbose {
            rows.push(("analyzed_plan", self.analyzed()?));
        }
        rows.push(("incremental_plan", self.incremental().await?));
        let (types, plans): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let columns = vec![
            Arc::new(StringArray::from(types)) as _,
            Arc::new(StringArray::from(plans)) as _,
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn analyzed(&self) -> Result<String> {
        let options = self.state.config_options();
        let plan = self.plan.clone();
        let analyzed = self
            .state
            .analyzer()
            .execute_and_check(plan, options, |_, _| {})?;
        Ok(analyzed.display_indent_schema().to_string())
    }

    async fn incremental(&self) -> Result<String> {
        let mut first = None;
        let all = [OutputMode::Update, OutputMode::Append, OutputMode::Complete];
        let asked = |mode: &OutputMode| self.mode.is_none_or(|asked| asked == *mode);
        for mode in all.into_iter().filter(asked) {
            let request = PlanRequest {
                state_ttl: None,
                plan: self.plan.clone(),
                session: self.state.clone(),
                mode,
                refresh: static_refresh(),
            };
            match Box::pin(plan_query(request)).await {
                Ok(plan) => return Ok(plan.explain()),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or_else(|| Error::internal("no output mode was tried")))
    }
}

#[async_trait]
impl TableProvider for ExplainTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let rows = self.rows().await?;
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        table.scan(state, projection, filters, limit).await
    }
}
