//! The configuration that an extension made of its messages, for those who do not know its type.

use std::{any::Any, fmt::Debug, sync::Arc};

/// The configuration of an extension, whose type only the extension knows.
pub trait Settings: Any + Debug + Send + Sync {}

impl<T: Any + Debug + Send + Sync> Settings for T {}

/// What an extension made of its configuration, shared by all threads.
pub type SharedSettings = Arc<dyn Settings>;

/// The configuration as the type that the extension made of it.
pub fn settings_of<T: Send + Sync + 'static>(settings: &SharedSettings) -> Option<Arc<T>> {
    let any: Arc<dyn Any + Send + Sync> = Arc::<dyn Settings>::clone(settings);
    any.downcast().ok()
}
