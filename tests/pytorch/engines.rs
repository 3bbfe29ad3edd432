//! The engines under test.

use fairtat::engine::Engine;
use fairtat::engine::candle::{CandleDevice, CandleEngine};
use fairtat::engine::wgsl::{WgslEngine, WgslOptions};
use fairtat::model::{Network, State};

/// Opens an engine for a network with the parameters of a state.
pub(crate) type Open = fn(Network, &State) -> Box<dyn Engine>;

/// An engine and its tolerance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tested {
    pub(crate) name: &'static str,
    pub(crate) open: Open,
    /// Largest relative error of any quantity; never above [`crate::golden::TOLERANCE`].
    pub(crate) tolerance: f64,
}

/// All engines. Candle's largest error is 6e-6, in parameter gradients of resnet-20, and most are below 1e-6.
pub(crate) const ENGINES: [Tested; 2] =
    [Tested { name: "candle", open: candle, tolerance: 2e-5 }, Tested { name: "wgsl", open: wgsl, tolerance: 2e-5 }];

fn candle(network: Network, state: &State) -> Box<dyn Engine> {
    Box::new(CandleEngine::new(network, state, CandleDevice::Cpu).unwrap())
}

/// Uses the adapter whose name contains `FAIRTAT_TEST_ADAPTER`, or the best one if that is not set.
fn wgsl(network: Network, state: &State) -> Box<dyn Engine> {
    let options =
        WgslOptions { adapter: std::env::var("FAIRTAT_TEST_ADAPTER").ok(), pipelines: None, ..Default::default() };
    Box::new(WgslEngine::new(network, state, &options).unwrap())
}
