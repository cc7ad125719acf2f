from flask import Blueprint, Flask

app = Flask(__name__)
orders = Blueprint("orders", __name__, url_prefix="/api/orders")


@orders.get("/")
def all_orders() -> list[str]:
    return []


app.register_blueprint(orders)
