def create_app() -> object:
    return object()
