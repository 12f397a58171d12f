"""Where models and users' settings are; the tests set both."""

folders: dict[str, list[str]] = {}
models_dir = ""
user_directory = ""
temp_directory = ""


def add_model_folder_path(name: str, path: str) -> None:
    if path not in folders.setdefault(name, []):
        folders[name].append(path)


def get_folder_paths(name: str) -> list[str]:
    return list(folders[name])


def get_user_directory() -> str:
    return user_directory


def get_temp_directory() -> str:
    return temp_directory
