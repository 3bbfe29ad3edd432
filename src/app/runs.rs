//! Run directories as the comparison reads them.
