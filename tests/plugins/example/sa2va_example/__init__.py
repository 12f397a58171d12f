"""One plugin of each kind: a front end, a model family, a mask processor on either side, and a known model."""

from sa2va_host.plugins.hookspecs import FrontEnd, KnownModel, MaskProcessor, ModelFamily, hookimpl


@hookimpl
def register_front_ends(register):
    register(FrontEnd(name="greet", summary="says hello", run=_greet))


def _greet(arguments):
    print("hello", *arguments)
    return 0


@hookimpl
def register_model_families(register):
    register(ModelFamily(name="bright", claims=_is_bright, make_engine=_make_engine))


def _is_bright(config):
    return config.get("model_type") == "bright"


def _make_engine():
    from .engine import BrightEngine

    return BrightEngine()


@hookimpl
def register_mask_processors(register):
    for name, in_worker in (("contrast", False), ("contrast-there", True)):
        register(
            MaskProcessor(
                name=name,
                summary="a probability pulled away from, or towards, one half",
                make=_make_contrast,
                options={"factor": 2.0},
                in_worker=in_worker,
            )
        )


def _make_contrast(device):
    def contrast(probability, picture, options):
        return ((probability - 0.5) * options["factor"] + 0.5).clip(0, 1)

    return contrast


@hookimpl
def register_known_models(register):
    register(KnownModel(name="Org/Bright-100", family="bright", download=100, licence="MIT"))
