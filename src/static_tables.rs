//! What tells that a static table beside a stream has changed, for the tables of this session's own sinks and readers.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use highwater_connectors::file::FileTable;
use highwater_connectors::memory::MemoryTable;
use highwater_plan::{RefreshWhen, StaticRefresh, TableVersions};

use crate::Result;

/// How static tables are read again unless a query says otherwise.
pub(crate) fn static_refresh() -> StaticRefresh {
    StaticRefresh {
        when: RefreshWhen::default(),
        versions: Some(Arc::new(OwnTables)),
    }
}

/// The tables of files, and those that memory sinks write.
#[derive(Debug)]
struct OwnTables;

#[async_trait]
impl TableVersions for OwnTables {
    async fn version_of(&self, table: &dyn TableProvider) -> Result<Option<u64>> {
        if let Some(files) = table.downcast_ref::<FileTable>() {
            return files.version().await.map(Some);
        }
        let in_memory: Option<&MemoryTable> = table.downcast_ref();
        Ok(in_memory.map(MemoryTable::version))
    }
}
