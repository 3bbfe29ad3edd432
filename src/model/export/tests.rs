use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::pickle::PthTensors;
use prost::Message;

use super::messages::{Model, Node};
use super::*;
use crate::model::Architecture;

fn network(architecture: Architecture, side: usize) -> Network {
    let channels = if architecture == Architecture::DigitsCnn { 1 } else { 3 };
    let (mean, std) = (&[0.5, 0.25, 0.125][..channels], &[0.3, 0.2, 0.1][..channels]);
    architecture.build(ImageShape::new(channels, side, side), 10, Some((mean, std)), Some(10))
}

fn facts() -> Facts {
    [("epoch", "3"), ("class_names", "[\"a\",\"ü\"]")].map(|(key, value)| (key.into(), value.into())).into()
}

fn written(write: impl Fn(&Path) -> Result<(), ModelError>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    write(&path).unwrap();
    let first = std::fs::read(&path).unwrap();
    write(&path).unwrap();
    assert_eq!(first, std::fs::read(&path).unwrap(), "the same arrays and facts give the same bytes");
    (dir, path)
}

#[test]
fn probes_are_computed_by_hand() {
    let images = probe_images(ImageShape::new(3, 2, 2));
    assert_eq!(images.len(), PROBE_IMAGES * 12);
    // Image 3, value 11: 11 · (11 + 7) = 198; image 1, value 10: 10 · 13 = 130; image 3, value 10: 170.
    assert_eq!([images[47], images[22], images[46]], [198.0 / 256.0, 130.0 / 256.0, 170.0 / 256.0]);
    // Far values do not overflow: value 786,431 of image 0.
    let large = probe_images(ImageShape::new(3, 512, 512));
    assert_eq!(large[786_431], (786_431u64 * 786_432 % 251) as f32 / 256.0);
    assert!(large.iter().all(|value| (0.0..1.0).contains(value)));
    assert_eq!(probe_text(&[1.5, -0.1, 3.0, 1e-9], 2), "[[1.5,-0.1],[3.0,1e-9]]");
}

#[test]
fn pth_files_hold_every_array_in_the_order_of_execution() {
    for architecture in Architecture::ALL {
        let network = network(architecture, 16);
        let state = State::initialise(&network, 1);
        for names in [Names::Plain, Names::Sequential] {
            let (_dir, path) = written(|path| save_pth(path, &network, &state, names, &facts()));
            let tensors = PthTensors::new(&path, None).unwrap();
            let prefix = if names == Names::Plain { "" } else { "1." };
            for (name, array) in &state.0 {
                let found = tensors.get(&format!("{prefix}{name}")).unwrap().unwrap();
                assert_eq!(found.dims(), array.shape, "{architecture} {name}");
                assert_eq!(found.flatten_all().unwrap().to_vec1::<f32>().unwrap(), array.data);
            }
            let extra = if names == Names::Plain { 0 } else { 2 };
            assert_eq!(tensors.tensor_infos().len(), state.0.len() + extra);
            let infos = candle_core::pickle::read_pth_tensor_info(&path, false, None).unwrap();
            // Candle returns them last first.
            let order: Vec<String> = infos.into_iter().rev().map(|info| info.name).collect();
            let own = network.state_specs().into_iter().map(|spec| format!("{prefix}{}", spec.name));
            assert_eq!(order[extra..], own.collect::<Vec<_>>());
            if names == Names::Sequential {
                assert_eq!(order[..2], ["0.mean", "0.std"]);
                let mean = tensors.get("0.mean").unwrap().unwrap();
                assert_eq!(mean.dims(), [1, network.input.channels, 1, 1]);
                assert_eq!(mean.flatten_all().unwrap().to_vec1::<f32>().unwrap(), normalisation(&network).unwrap().0);
            }
        }
    }
}

#[test]
fn records_of_pth_files_are_stored_and_aligned() {
    let network = network(Architecture::DigitsCnn, 8);
    let state = State::initialise(&network, 1);
    let (_dir, path) = written(|path| save_pth(path, &network, &state, Names::Plain, &facts()));
    let mut zip = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(zip.by_index(0).unwrap().name().unwrap(), "archive/data.pkl");
    for i in 0..zip.len() {
        let record = zip.by_index(i).unwrap();
        let name = record.name().unwrap();
        assert_eq!(record.compression(), zip::CompressionMethod::Stored, "{name}");
        assert_eq!(record.data_start().unwrap() % 64, 0, "{name}");
    }
    let mut text = String::new();
    zip.by_name("archive/extra/fairtat.json").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts());
}

#[test]
fn onnx_graphs_are_complete_and_in_order() {
    for architecture in Architecture::ALL {
        for normalised in [true, false] {
            let mut network = network(architecture, 16);
            if !normalised {
                network = architecture.build(network.input, 10, None, Some(10));
            }
            let state = State::initialise(&network, 1);
            let (_dir, path) = written(|path| save_onnx(path, &network, &state, &facts()));
            let model = Model::decode(&std::fs::read(path).unwrap()[..]).unwrap();
            assert_eq!(model, onnx::model(&network, &state, &facts()));
            let graph = model.graph.unwrap();
            let initializers: BTreeSet<String> = graph.initializers.iter().map(|tensor| tensor.name.clone()).collect();
            let mut expected: BTreeSet<String> = state.0.keys().cloned().collect();
            if normalised {
                expected.extend(["normalize.mean".to_owned(), "normalize.std".to_owned()]);
            }
            assert_eq!((initializers.len(), &initializers), (graph.initializers.len(), &expected), "{architecture}");
            for tensor in &graph.initializers {
                let bytes = tensor.dimensions.iter().product::<i64>() as usize * 4;
                assert_eq!(tensor.raw_data.len(), bytes, "{}", tensor.name);
            }
            let weight = graph.initializers.iter().find(|tensor| tensor.name == "conv1.weight").unwrap();
            let values = weight.raw_data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            assert_eq!(values.collect::<Vec<_>>(), state.0["conv1.weight"].data);

            // Every node reads what exists, under a name of its own, and every array is read.
            let mut known = initializers.clone();
            known.insert("images".into());
            let (mut names, mut read) = (BTreeSet::new(), BTreeSet::new());
            for Node { inputs, outputs, name, .. } in &graph.nodes {
                assert!(inputs.iter().all(|input| known.contains(input)), "{architecture} {name} {inputs:?}");
                assert!(names.insert(name.clone()) && known.insert(outputs[0].clone()), "{architecture} {name}");
                read.extend(inputs.iter().cloned());
            }
            assert!(initializers.is_subset(&read) && read.contains("images"), "{architecture}");
            assert_eq!(graph.nodes.last().unwrap().outputs, ["logits"]);
        }
    }
}

#[test]
fn onnx_states_its_shapes_versions_and_facts() {
    let network = network(Architecture::DigitsCnn, 8);
    let model = onnx::model(&network, &State::initialise(&network, 1), &facts());
    assert_eq!((model.ir_version, model.operator_sets[0].version), (8, 17));
    let facts: Vec<(&str, &str)> =
        model.metadata.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    assert!(facts.contains(&("architecture", "digits-cnn")) && facts.contains(&("epoch", "3")), "{facts:?}");
    let graph = model.graph.unwrap();
    let shape = |value: &super::messages::ValueInfo| {
        let tensor = value.kind.clone().unwrap().tensor.unwrap();
        let text = |d: &super::messages::Dimension| d.parameter.clone().unwrap_or_else(|| d.value.unwrap().to_string());
        (value.name.clone(), tensor.shape.unwrap().dimensions.iter().map(text).collect::<Vec<_>>().join(","))
    };
    assert_eq!(graph.inputs.iter().map(shape).collect::<Vec<_>>(), [("images".into(), "batch,1,8,8".into())]);
    assert_eq!(graph.outputs.iter().map(shape).collect::<Vec<_>>(), [("logits".into(), "batch,10".into())]);
    let operators: Vec<&str> = graph.nodes.iter().map(|node| node.operator.as_str()).collect();
    let norm = ["Conv", "BatchNormalization", "Relu"];
    let end = ["GlobalAveragePool", "Flatten", "Gemm"];
    assert_eq!(operators, [&["Sub", "Div"][..], &norm, &norm, &["MaxPool"], &norm, &end].concat());
    assert_eq!(graph.nodes[2].name, "conv1");
    assert_eq!(graph.nodes[2].inputs, ["normalize_1", "conv1.weight"]);
    assert_eq!(graph.nodes[2].attributes[2].integers, [1; 4]);
    assert_eq!(graph.nodes[3].attributes[0].float, Some(1e-5));
}

/// After an intended change: `UPDATE_SNAPSHOTS=1 cargo test --lib export`, and review the difference.
#[test]
fn the_loader_of_a_small_network_is_unchanged() {
    let text = loader(&Architecture::DigitsCnn.build(
        ImageShape::new(1, 8, 8),
        10,
        Some((&[0.305_288_94], &[0.376_247_58])),
        None,
    ))
    .unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/export/digits_cnn.py");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap());
}

#[test]
fn blocks_of_one_kind_are_one_class() {
    let text = loader(&network(Architecture::PreActResNet18, 32)).unwrap();
    let shortcut = r#"
class Block2(nn.Module):
    """layer2.0, layer3.0, layer4.0."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False))
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)

    def forward(self, x):
        x = F.relu(self.bn1(x))
        y = self.shortcut(x)
        x = self.conv1(x)
        x = F.relu(self.bn2(x))
        x = self.conv2(x)
        return x + y
"#;
    assert!(text.contains(shortcut), "{text}");
    let network = r"
        self.layer2 = nn.Sequential(Block2(10, 20), Block1(20))
";
    assert!(text.contains(network), "{text}");
    let forward = r"
    def forward(self, images):
        x = (images - self.mean) / self.std
        x = self.conv1(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        x = F.relu(self.bn(x))
        x = x.mean(dim=(2, 3))
        return self.linear(x)
";
    assert!(text.contains(forward), "{text}");
}

#[test]
fn every_architecture_has_a_loader_of_readable_lines() {
    for architecture in Architecture::ALL {
        for side in [8, 33, 224] {
            let network = network(architecture, side);
            let text = loader(&network).unwrap();
            let long = text.lines().find(|line| line.chars().count() > body::WIDTH);
            assert_eq!(long, None, "{architecture}");
            assert!(!text.contains("{{") && !text.contains('?') && text.contains("class Network(nn.Module):"));
            // Without normalisation there is nothing to subtract.
            let plain = loader(&architecture.build(network.input, 10, None, Some(10))).unwrap();
            assert!(!plain.contains("self.mean") && plain.contains("not normalised"), "{architecture}");
        }
    }
}

/// PyTorch's default, which the loader does not write out.
#[test]
fn batch_norm_has_the_epsilon_of_pytorch() {
    assert_eq!(super::super::BATCH_NORM_EPSILON, 1e-5);
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let network = network(Architecture::SmallCnn, 16);
    let state = State::initialise(&network, 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let plain = Architecture::SmallCnn.build(network.input, 10, None, Some(10));
    let refused = save_pth(&path, &plain, &state, Names::Sequential, &facts()).unwrap_err().to_string();
    assert!(refused.contains("need a network that normalises its images"), "{refused}");

    let mut incomplete = state.clone();
    incomplete.0.remove("bn1.bias");
    for error in [
        save_pth(&path, &network, &incomplete, Names::Plain, &facts()),
        save_onnx(&path, &network, &incomplete, &facts()),
    ] {
        assert!(error.unwrap_err().to_string().contains("'bn1.bias' [10] is missing"));
    }

    let mut renamed = network.clone();
    renamed.layers[1].name = "conv 1".into();
    let error = loader(&renamed).unwrap_err().to_string();
    assert!(error.contains("'conv 1' has a name that a module in Python cannot have"), "{error}");

    let mut headless = network.clone();
    let pooling = headless.layers.len() - 2;
    headless.layers[pooling].op = Op::MaxPool { size: 4 };
    let error = loader(&headless).unwrap_err().to_string();
    assert!(error.contains("reads maps"), "{error}");
    assert!(!path.exists());
}
