"""The licences of bases, as the Hub states them: what is made of a base can be given on under its terms only."""

from __future__ import annotations

from dataclasses import dataclass

LICENCE_TO_FILL_IN = "The base's licence is not known to svdtrain: fill this in before you publish."


@dataclass(frozen=True)
class Licence:
    """A base's licence, by the names of a model card's front matter."""

    identifier: str
    """The Hub's, or `other`."""
    name: str = ""
    """Of a licence that is `other`."""
    link: str = ""
    terms: str = ""
    """What a reader must know before the text itself; a whole sentence."""


UNKNOWN = Licence("other")
NON_COMMERCIAL = Licence("cc-by-nc-4.0", terms="It allows no commercial use.")


def _stability(base: str, name: str = "stable-video-diffusion-community") -> Licence:
    terms = "It has terms for commercial use and for those who pass on what is derived from it: read it first."
    return Licence("other", name, f"https://huggingface.co/{base}/blob/main/LICENSE.md", terms)


def _thudm(base: str) -> Licence:
    terms = "It has terms for commercial use: read it first."
    return Licence("other", "cogvideox-license", f"https://huggingface.co/{base}/blob/main/LICENSE", terms)


BASES = {
    "nano": Licence("apache-2.0"),
    "stabilityai/stable-video-diffusion-img2vid": _stability("stabilityai/stable-video-diffusion-img2vid"),
    "stabilityai/stable-video-diffusion-img2vid-xt": _stability("stabilityai/stable-video-diffusion-img2vid-xt"),
    "stabilityai/stable-video-diffusion-img2vid-xt-1-1": _stability(
        "stabilityai/stable-video-diffusion-img2vid-xt-1-1", "stable-video-diffusion-1-1-community"
    ),
    "ali-vilab/text-to-video-ms-1.7b": NON_COMMERCIAL,
    "cerspense/zeroscope_v2_576w": NON_COMMERCIAL,
    "guoyww/animatediff-motion-adapter-v1-5-2": Licence("apache-2.0"),
    "ali-vilab/i2vgen-xl": Licence("mit"),
    "THUDM/CogVideoX-2b": Licence("apache-2.0"),
    "THUDM/CogVideoX-5b": _thudm("THUDM/CogVideoX-5b"),
    "THUDM/CogVideoX-5b-I2V": _thudm("THUDM/CogVideoX-5b-I2V"),
    "THUDM/CogVideoX1.5-5B": _thudm("THUDM/CogVideoX1.5-5B"),
}
"""Hub id, or `nano` for the packaged base -> its licence."""


def licence_of(base: str) -> Licence:
    """The licence of a base by its Hub id (or `nano`); UNKNOWN for any other."""
    return BASES.get(base, UNKNOWN)
