"""Model card of imported weights: source, architecture, metrics on the template."""

from collections.abc import Mapping
from typing import Any

LICENCE = "non-profit research only, as published with the weights (Lozupone et al. 2025)"


def card_of(
    config: Mapping[str, Any], proof: Mapping[str, float], remarks: list[str], *, parameters: int
) -> str:
    """Return the card of an imported LDAE, or of its stage 1 alone."""
    whole = config["kind"] == "ldae"
    files = "\n".join(
        f"- {role}: {source['file']} (sha256 {source['sha256']})"
        for role, source in config["imported"]["files"].items()
    )
    unet = config["unet"]
    lines = [
        f"- {parameters:,} numbers; every tensor loaded, none left over",
        f"- denoiser: {unet['base_channels']} channels times {list(unet['multipliers'])},"
        f" {unet['num_res_blocks']} residual blocks a level, attention at levels"
        f" {list(unet['attention_levels'])}; the first axis is never pooled",
        "- predicts the noise of z_0 = latent · one factor; 1000 steps, beta linear 1e-4 to 0.02",
    ]
    if whole:
        encoder = config["encoder"]
        lines.append(
            f"- semantic encoder: ConvNeXt {list(encoder['channels'])}, blocks"
            f" {list(encoder['depths'])}, over {encoder['num_slices']} axial slices of the volume;"
            f" y_sem of {encoder['dim']} numbers"
        )
    lines.append(f"- works with the autoencoder {config['autoencoder_digest'][:12]} alone")
    metrics = "\n".join(f"- {name}: {value:.5g}" for name, value in proof.items())
    remark_lines = "\n".join(f"- {words}" for words in remarks) or "- nothing"
    title = "Imported LDAE" if whole else "Imported latent diffusion model (stage 1)"
    return f"""# {title}

Made elsewhere; imported from

{files}

{chr(10).join(lines)}

## On the MNI152 template

{metrics or "- not judged"}

Remarks:

{remark_lines}

Licence of the weights: {config["imported"]["licence"]}. Not a medical device.

Method: Lozupone et al. 2025 (arXiv 2504.08635), Zhang et al. 2022 (arXiv 2212.12990).
"""
