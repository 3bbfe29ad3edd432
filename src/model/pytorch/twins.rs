//! Networks that look like one of this program's and compute something else, told by the names and shapes of their
//! arrays.

use std::collections::BTreeMap;

use crate::model::network::Network;

/// Names and shapes of the arrays of a state dict.
pub(super) type Shapes<'a> = BTreeMap<&'a str, &'a [usize]>;

/// What the file is, as far as names and shapes tell, and what to do; `None` if nothing is known.
pub(super) fn diagnose(found: &Shapes<'_>, network: &Network) -> Option<String> {
    let has = |part: &str| found.keys().any(|name| name.contains(part));
    let is = |name: &str| found.contains_key(name);
    let wanted = |name: &str| network.state_specs().iter().any(|spec| spec.name == name);
    let preact = network.architecture.starts_with("preact-resnet-18");

    if has("batchnorm_0") && is("logits.weight") {
        let kind = if is("init_conv.weight") { "DMWideResNet" } else { "DMPreActResNet" };
        return Some(format!(
            "this is {kind} of DeepMind's and RobustBench's code, whose published models use SiLU (Swish); a state dict \
             does not record the activation, and this program computes ReLU only, so these weights cannot be used"
        ));
    }
    if has(".downsample.0.weight") && is("fc.weight") && has("layer4.") {
        return Some(
            "this is torchvision's ResNet (batch norm after each convolution, 'downsample' shortcuts, 'fc'), which is not \
             among this program's architectures"
                .into(),
        );
    }
    if preact && is("bn1.weight") && !is("bn.weight") {
        return Some(
            "this is ResNet-18, not PreActResNet-18: it has a batch norm after the first convolution ('bn1') and in the \
             shortcuts ('shortcut.1'); it is not among this program's architectures"
                .into(),
        );
    }
    if preact && has(".shortcut.1.") {
        return Some(
            "its shortcuts have a batch norm ('shortcut.1'), which this program's PreActResNet-18 does not have".into(),
        );
    }
    if wanted("bn.weight") && !is("bn.weight") && is("layer4.1.conv2.weight") && is("linear.weight") {
        return Some(
            "this is PreActResNet-18 without a last batch norm, the network of FRL's authors; set model.arch to \
             'preact-resnet-18-no-final-bn' in the experiment"
                .into(),
        );
    }
    if network.architecture == "preact-resnet-18-no-final-bn" && is("bn.weight") {
        return Some(
            "this is PreActResNet-18 with a last batch norm ('bn'); set model.arch to 'preact-resnet-18' in the experiment"
                .into(),
        );
    }
    if network.architecture == "resnet-20" && is("layer3.2.conv2.weight") {
        if !has("downsample") && !has("shortcut") {
            return Some(
                "its shortcuts have no parameters (option A of He et al.: subsampling and zero channels), while this \
                 program's resnet-20 has a 1×1 convolution and a batch norm in them (option B): another network"
                    .into(),
            );
        }
        if has(".shortcut.0.") || is("linear.weight") {
            return Some(
                "it looks like ResNet-20 under other names; this program's are 'layer2.0.downsample.0', \
                 'layer2.0.downsample.1' and 'fc'"
                    .into(),
            );
        }
    }
    wide(found, network).or_else(|| width(found, network))
}

/// Wide ResNets of another depth, and the copy of the first block that TRADES' code creates and never runs.
fn wide(found: &Shapes<'_>, network: &Network) -> Option<String> {
    if !network.architecture.starts_with("wide-resnet") {
        return None;
    }
    let blocks = |names: &mut dyn Iterator<Item = &str>| {
        let numbers =
            names.filter_map(|name| name.strip_prefix("block1.layer.")?.split('.').next()?.parse::<usize>().ok());
        numbers.max().map_or(0, |last| last.saturating_add(1))
    };
    let theirs = blocks(&mut found.keys().copied());
    let specs = network.state_specs();
    let ours = blocks(&mut specs.iter().map(|spec| spec.name.as_str()));
    if theirs > 0 && theirs != ours {
        let depth = |blocks: usize| blocks.saturating_mul(6).saturating_add(4);
        return Some(format!(
            "the file is a wide ResNet of depth {}, the experiment's has depth {}; set model.arch in the experiment",
            depth(theirs),
            depth(ours)
        ));
    }
    let unused = found.keys().filter(|name| name.starts_with("sub_block1.")).count();
    (unused > 0).then(|| {
        format!(
            "the {unused} arrays of 'sub_block1' belong to a block that the code of TRADES creates and never runs; \
             --ignore-extra leaves them out"
        )
    })
}

/// The same network with other numbers of channels or classes.
fn width(found: &Shapes<'_>, network: &Network) -> Option<String> {
    let specs = network.state_specs();
    let shapes = || specs.iter().filter_map(|spec| Some((spec, *found.get(spec.name.as_str())?)));
    let (first, theirs) = shapes().next()?;
    let (expected, channels) = (first.shape.first()?, theirs.first()?);
    if theirs.get(1) != first.shape.get(1) {
        let (of, images) = (theirs.get(1)?, first.shape.get(1)?);
        return Some(format!("the file is for images with {of} channels, the data has {images}"));
    }
    if expected != channels {
        return Some(format!(
            "its first convolution has {channels} channels, the experiment's {expected}; set model.width in the experiment"
        ));
    }
    let (last, theirs) = shapes().next_back()?;
    let (expected, classes) = (last.shape.first()?, theirs.first()?);
    (expected != classes).then(|| format!("the file has {classes} classes, the data {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ImageShape;
    use crate::model::Architecture;

    fn network(architecture: Architecture, width: usize) -> Network {
        architecture.build(ImageShape::new(3, 32, 32), 10, None, Some(width))
    }

    /// What is said of the arrays of `file` with other names added, renamed or removed.
    fn said(file: Architecture, change: impl Fn(String) -> Option<String>, wanted: Architecture) -> String {
        let specs = network(file, 10).state_specs();
        let named: BTreeMap<String, Vec<usize>> =
            specs.into_iter().filter_map(|spec| Some((change(spec.name)?, spec.shape))).collect();
        let shapes = named.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        diagnose(&shapes, &network(wanted, 10)).unwrap_or_default()
    }

    #[test]
    fn near_twins_are_named() {
        use Architecture::{
            PreActResNet18 as PreAct, PreActResNet18NoFinalBn as NoBn, ResNet20, WideResNet28x10, WideResNet34x10,
        };
        assert!(said(NoBn, Some, PreAct).contains("'preact-resnet-18-no-final-bn'"));
        assert!(said(PreAct, Some, NoBn).contains("set model.arch to 'preact-resnet-18'"));
        let resnet = |name: String| {
            Some(match name.strip_prefix("bn.") {
                Some(field) => format!("bn1.{field}"),
                None => name,
            })
        };
        assert!(said(PreAct, resnet, PreAct).contains("this is ResNet-18"));
        let torchvision = |name: String| Some(name.replace("shortcut", "downsample").replace("linear", "fc"));
        assert!(said(PreAct, torchvision, PreAct).contains("torchvision"));
        let option_a = |name: String| (!name.contains("downsample")).then_some(name);
        assert!(said(ResNet20, option_a, ResNet20).contains("option A"));
        let renamed = |name: String| Some(name.replace("downsample", "shortcut"));
        assert!(said(ResNet20, renamed, ResNet20).contains("'layer2.0.downsample.0'"));
        assert!(said(WideResNet34x10, Some, WideResNet28x10).contains("depth 34, the experiment's has depth 28"));
        let silu = |name: String| {
            Some(match name.as_str() {
                "conv1.weight" => "init_conv.weight".into(),
                "fc.weight" => "logits.weight".into(),
                _ => name.replace("block1.layer.0.bn1", "layer.0.block.0.batchnorm_0"),
            })
        };
        assert!(said(WideResNet28x10, silu, WideResNet28x10).contains("SiLU"));
        assert_eq!(said(PreAct, Some, PreAct), "");
    }

    #[test]
    fn other_numbers_are_named() {
        let shapes =
            |network: &Network| network.state_specs().into_iter().map(|s| (s.name, s.shape)).collect::<Vec<_>>();
        let narrow = shapes(&network(Architecture::SmallCnn, 4));
        let narrow = narrow.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        let said = diagnose(&narrow, &network(Architecture::SmallCnn, 8)).unwrap();
        assert!(said.contains("has 4 channels, the experiment's 8; set model.width"), "{said}");
        let grey = Architecture::SmallCnn.build(ImageShape::new(1, 28, 28), 10, None, Some(4));
        assert!(diagnose(&narrow, &grey).unwrap().contains("images with 3 channels, the data has 1"));
        let hundred = Architecture::SmallCnn.build(ImageShape::new(3, 32, 32), 100, None, Some(4));
        assert!(diagnose(&narrow, &hundred).unwrap().contains("the file has 10 classes, the data 100"));
    }
}
