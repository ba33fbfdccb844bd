//! Resources from files: what changes takes effect, what is bad changes nothing, and no connection ends.

mod clusters;
mod endpoints;
mod listeners;
mod load;
mod routes;
mod site;
mod survival;
