//! Object stores that open themselves: `s3://bucket/…` is built from the environment when it is first seen.

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use url::Url;

/// DataFusion's registry, and a store for each bucket that is asked for.
#[derive(Debug, Default)]
pub(crate) struct Stores(DefaultObjectStoreRegistry);

impl ObjectStoreRegistry for Stores {
    fn register_store(
        &self,
        url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        self.0.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.0.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let unknown = match self.0.get_store(url) {
            Ok(store) => return Ok(store),
            Err(unknown) => unknown,
        };
        let (true, Some(bucket)) = (matches!(url.scheme(), "s3" | "s3a"), url.host_str()) else {
            return Err(unknown);
        };
        let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build();
        let store = store.map_err(|e| DataFusionError::ObjectStore(Box::new(e)))?;
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        self.0.register_store(url, Arc::clone(&store));
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_opened_once_and_other_schemes_are_left_alone() {
        let stores = Stores::default();
        let url = Url::parse("s3://bucket/folder").expect("a URL");
        let first = stores.get_store(&url).expect("a store");
        let other = Url::parse("s3://bucket/other").expect("a URL");
        assert!(Arc::ptr_eq(
            &first,
            &stores.get_store(&other).expect("a store")
        ));
        let url = Url::parse("hdfs://host/folder").expect("a URL");
        assert!(stores.get_store(&url).is_err());
    }
}
