"""The folder of one game: a fresh world, its settings and the two mods.

A folder is never used twice: a world keeps its map, and its seed, whatever seed the settings name later.
"""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from neuralsim.envs.minetest.inputs import FIELD_OF_VIEW, key_settings, mouse_sensitivity

HERE = Path(__file__).parent

PLAYER = "neuralsim"
"""Name of the player; ``singleplayer`` is refused where the name is given."""


@dataclass(frozen=True)
class WorldSettings:
    """What a game is like.

    Attributes:
        task: Name of the task.
        seed: Of the world, 0 or more.
        render_size: Height and width in pixels at which the game draws.
        viewing_range: In nodes; the main cost of a frame.
        hud: Whether hotbar, crosshair and the hand are drawn.
        goal_distance: How far the goal of "navigate" is from the start, in nodes.
    """

    task: str
    seed: int
    render_size: tuple[int, int]
    viewing_range: int
    hud: bool
    goal_distance: float


def write_instance(folder: Path, settings: WorldSettings) -> None:
    """Writes everything that a game needs into an empty folder: ``world``, ``minetest.conf`` and the player's mods."""
    world = folder / "world"
    shutil.copytree(HERE / "world_mod", world / "worldmods" / "neuralsim")
    client_mods = folder / ".minetest" / "clientmods"  # the game's home is the folder
    shutil.copytree(HERE / "client_mod", client_mods / "neuralsim_pose")
    (client_mods / "mods.conf").write_text("load_mod_neuralsim_pose = true\n")
    (world / "world.mt").write_text(
        _lines(
            gameid="minetest",
            backend="dummy",  # the map lives in memory
            player_backend="dummy",
            auth_backend="sqlite3",
            mod_storage_backend="sqlite3",
            creative_mode="false",
            enable_damage="false",
        )
    )
    (folder / "minetest.conf").write_text(_lines(**_configuration(settings)))


def _configuration(settings: WorldSettings) -> dict[str, object]:
    height, width = settings.render_size
    return {
        # the task, for the mod
        "neuralsim_task": settings.task,
        "neuralsim_goal_distance": f"{settings.goal_distance:g}",
        "neuralsim_hud": settings.hud,
        "secure.trusted_mods": "neuralsim",  # it calls the shim, which needs LuaJIT's FFI
        "debug_log_level": "",  # no log file: what the game says comes by its standard error
        "enable_client_modding": True,
        "csm_restriction_flags": 0,
        # the world
        "mg_name": "v7",
        "fixed_map_seed": settings.seed,
        "name": PLAYER,
        "creative_mode": False,
        "enable_damage": False,
        "give_initial_stuff": False,
        "world_start_time": 12000,
        "time_speed": 0,  # noon for ever
        "enable_weather": False,
        # Below a step of 50 ms, so that the client sends where it is with each frame.
        "dedicated_server_step": 0.04,
        "num_emerge_threads": 1,
        "bind_address": "127.0.0.1",
        "server_announce": False,
        # the picture
        "screen_w": width,
        "screen_h": height,
        "fullscreen": False,
        "autosave_screensize": False,
        "video_driver": "opengl",
        "vsync": False,
        "fps_max": 1000,
        "fps_max_unfocused": 1000,
        "pause_on_lost_focus": False,
        "fov": f"{FIELD_OF_VIEW:g}",
        "viewing_range": settings.viewing_range,
        "smooth_lighting": True,
        "enable_shaders": False,
        "enable_dynamic_shadows": False,
        "enable_clouds": False,  # they move by themselves, and cost
        "menu_clouds": False,
        "enable_fog": True,
        "arm_inertia": False,  # the hand would sway on for half a second after every turn
        "view_bobbing_amount": 0,
        "fall_bobbing_amount": 0,
        "hud_scaling": f"{width / 1000:.3f}",
        "font_size": 8,
        "show_debug": False,
        "show_statusline_on_connect": False,
        "show_nametag_backgrounds": False,
        "enable_sound": False,
        "language": "en",
        # the controls
        "mouse_sensitivity": f"{mouse_sensitivity():.9f}",
        "invert_mouse": False,
        "cinematic": False,
        "doubletap_jump": False,
        "autojump": False,
        "safe_dig_and_place": False,
        **key_settings(),
    }


def _lines(**settings: object) -> str:
    plain = {name: str(value).lower() if isinstance(value, bool) else value for name, value in settings.items()}
    return "".join(f"{name} = {value}\n" for name, value in plain.items())


def free_port(wanted: int | None = None) -> int:
    """A UDP port for the game's own server, on this machine alone.

    Args:
        wanted: The port to use; any free one if None.

    Raises:
        OSError: If the wanted one is in use.
        ValueError: If it is no port.
    """
    if wanted is not None and not 1024 <= wanted <= 65535:
        raise ValueError(f"port {wanted} must lie between 1024 and 65535")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise OSError(
                f"the UDP port {wanted} is in use ({error.strerror}): leave port out, and every game finds a free one"
            ) from error
        return int(probe.getsockname()[1])
