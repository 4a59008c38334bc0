"""Any keras.applications network as a backbone; its pyramid levels are found by their stride."""

import inspect
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from solo_dist.config import BackboneConfig
from solo_dist.errors import ConfigError

STRIDES = (4, 8, 16, 32)


class Normalisation(NamedTuple):
    """(x - mean) / std on RGB 0..255, after swapping red and blue if bgr is set."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


_TORCH = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_CAFFE = Normalisation((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), bgr=True)
_UNIT = Normalisation((127.5,) * 3, (127.5,) * 3)

# The normalisation that the weights of each family were trained with; the first prefix that fits is taken. Keras
# keeps this partly in functions and partly in layers, and for EfficientNet in the weight file; here it is always
# outside the network.
_FAMILIES = (
    (("ResNet50V2", "ResNet101V2", "ResNet152V2", "MobileNet", "Inception", "Xception", "NASNet"), _UNIT),
    (("ResNet", "VGG"), _CAFFE),
    (("EfficientNetV2B", "EfficientNetB", "ConvNeXt", "DenseNet"), _TORCH),
    (("EfficientNetV2",), Normalisation((128.0,) * 3, (128.0,) * 3)),
)


def normalisation_of(name: str) -> Normalisation:
    """The normalisation that a keras.applications network expects. Raises ConfigError for unknown families."""
    for prefixes, normalisation in _FAMILIES:
        if name.startswith(prefixes):
            return normalisation
    known = ", ".join(prefix for prefixes, _ in _FAMILIES for prefix in prefixes)
    raise ConfigError(f"model.backbone.name='keras:{name}': known families begin with {known}.")


def build_application(name: str, input_shape: tuple[int, int, int], weights: str | None = None) -> keras.Model:
    """The network of keras.applications without its classifier and without its input layers if these are optional.

    Raises:
      ConfigError: there is no network of that name.
    """
    function = getattr(keras.applications, name, None)
    if not inspect.isfunction(function):
        raise ConfigError(
            f"model.backbone.name='keras:{name}' is not in keras.applications; use for example keras:ResNet50, "
            "keras:MobileNetV2, keras:EfficientNetB0 or keras:ConvNeXtTiny."
        )
    options = {}
    if "include_preprocessing" in inspect.signature(function).parameters:
        options["include_preprocessing"] = False
    return function(include_top=False, weights=weights, input_shape=input_shape, **options)


class LayerScale(keras.layers.Layer):
    """A learned factor for each channel, as in ConvNeXt; the variable of Keras' own layer has a running number."""

    def __init__(self, init_values: float, projection_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.init_values = init_values
        self.projection_dim = projection_dim

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variable."""
        initial = keras.initializers.Constant(self.init_values)
        self.gamma = self.add_weight(name="gamma", shape=(self.projection_dim,), initializer=initial)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> the same shape."""
        return x * self.gamma


def _with_fixed_names(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer of the same kind, without names that count the layers made before it.

    Names of variables are names in checkpoints, so they may not depend on what else the process has built.
    """
    config = layer.get_config()
    if isinstance(layer, keras.layers.Dropout):
        # Stochastic depth would bring the state of a random generator into the checkpoint.
        return keras.layers.Identity(name=layer.name)
    if type(layer).__name__ == "LayerScale":
        return LayerScale(config["init_values"], config["projection_dim"], name=layer.name)
    return type(layer).from_config(config)


class KerasBackbone(keras.layers.Layer):
    """Images -> C2..C5: the deepest tensor at each of the strides 4, 8, 16, 32.

    Args:
      config: with name keras:NAME. norm frozen_batch runs every BatchNorm on its stored statistics; the network's own
        epsilon and momentum stay.
    """

    def __init__(self, config: BackboneConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.application = config.name.removeprefix("keras:")
        self.normalisation = normalisation_of(self.application)
        if config.norm == "group":
            raise ConfigError("model.backbone.norm=group is not in keras.applications; use frozen_batch or batch.")

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Creates the variables."""
        self.image_shape = (input_shape[1], input_shape[2], input_shape[3])
        network = build_application(self.application, self.image_shape)
        levels = self._find_levels(network, self.image_shape[:2])
        inputs = network.inputs[0]
        for layer in network.layers:
            # EfficientNetB0..B7 cannot be built without these.
            if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization):
                inputs = layer.output
        features = keras.Model(inputs, [levels[stride].output for stride in STRIDES], name="features")
        self.features = keras.models.clone_model(features, clone_function=_with_fixed_names)
        self._freeze([levels[stride].name for stride in STRIDES])
        if self.config.norm == "sync_batch":
            for layer in self.features.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True

    def _find_levels(self, network: keras.Model, size: tuple[int, int]) -> dict[int, keras.layers.Layer]:
        levels = {}
        for layer in network.layers:
            # The last LayerNormalization of ConvNeXt belongs to its classifier.
            if isinstance(layer.output, list) or isinstance(layer, keras.layers.LayerNormalization):
                continue
            for stride in STRIDES:
                if tuple(layer.output.shape[1:3]) == (size[0] // stride, size[1] // stride):
                    levels[stride] = layer
        missing = [stride for stride in STRIDES if stride not in levels]
        if missing:
            raise ConfigError(
                f"model.backbone.name='keras:{self.application}' has no map of exactly 1/{missing[0]} of the canvas; "
                "use a network with symmetric padding, for example keras:ResNet50."
            )
        return levels

    def _freeze(self, levels: list[str]) -> None:
        """Freezes the layers up to the last one of the frozen stages; levels are the names of the layers of C2..C5."""
        stages = self.config.frozen_stages
        if stages < 0:
            return
        order = self.features.layers
        last = [layer.name for layer in order].index(levels[max(stages - 1, 0)])
        if stages == 0:
            # The stem ends at the first map of C2's size.
            size = order[last].output.shape[1:3]
            last = next(index for index, layer in enumerate(order) if layer.output.shape[1:3] == size) - 1
        for layer in order[: last + 1]:
            layer.trainable = False

    def call(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """RGB 0..255 of any type, [B, H, W, 3] -> four maps [B, H / stride, W / stride, channels]."""
        mean, std, bgr = self.normalisation
        x = tf.cast(images, tf.float32)
        x = (x[..., ::-1] if bgr else x) - tf.constant(mean)
        x = tf.cast(x / tf.constant(std), self.compute_dtype)
        outputs = self.features(x, training=training and self.config.norm != "frozen_batch")
        frozen = max(self.config.frozen_stages, 0)
        return [tf.stop_gradient(y) if index < frozen else y for index, y in enumerate(outputs)]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> list[tuple[int | None, ...]]:
        """Shapes of what `call` returns."""
        return [tuple(output.shape) for output in self.features.outputs]
