//! What a trained network is worth: accuracy under attack, reports and figures.

pub mod figures;
